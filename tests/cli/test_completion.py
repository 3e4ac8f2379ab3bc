"""A shell that has read our script completes our commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from recovery.cli import main
from tests.fleet import ROOT


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_of_its_own(shell: str) -> None:
    answer = CliRunner().invoke(main, ["completion", shell])

    # click asks the bash that is installed for its version, and refuses one that is too old.
    assert answer.exit_code == 0, answer.output
    assert f"{shell}_complete" in answer.output


def test_bash_completes_a_command(tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash on the path")
    command = tmp_path / "recovery"
    command.write_text(
        f"#!{sys.executable}\nfrom recovery.cli import main\nmain(prog_name='recovery')\n"
    )
    command.chmod(0o755)
    environ = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "COMP_WORDS": "recovery appr",
        "COMP_CWORD": "1",
        "_RECOVERY_COMPLETE": "bash_complete",
    }

    said = subprocess.run(["recovery"], env=environ, capture_output=True, text=True, check=True)

    assert said.stdout.split() == ["plain,approvals", "plain,approve"]

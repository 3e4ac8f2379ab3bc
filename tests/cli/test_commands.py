"""The ``recovery`` command as a person and as a script use it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from recovery.approvals import PendingApproval
from recovery.cli import main, session
from recovery.cli.deciding import approval_row
from recovery.deadline import Deadline
from recovery.events import TargetRef
from recovery.journal import RecordingJournal
from recovery.keeping import Shelf
from recovery.strategy import Scope
from tests.fleet import ROOT, Fleet
from tests.policies import write_policy
from tests.stack import Stack
from tests.test_admission import admit


def recovery(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from recovery.cli import main; main()", *arguments],
        cwd=ROOT,
        env=stack.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def every_command() -> list[tuple[str, click.Command]]:
    found = []
    for name, command in main.commands.items():
        if isinstance(command, click.Group):
            found += [(f"{name} {sub}", below) for sub, below in command.commands.items()]
        else:
            found.append((name, command))
    return found


@pytest.mark.parametrize(("name", "command"), every_command(), ids=str)
def test_every_command_has_help_with_an_example(name: str, command: click.Command) -> None:
    answer = CliRunner().invoke(main, [*name.split(), "--help"])

    assert answer.exit_code == 0
    assert f"recovery {name}" in answer.output


def test_waiting_for_a_repair_ends_with_zero_and_the_proof(stack: Stack, fleet: Fleet) -> None:
    fleet.start()
    stack.exhaust_clients()

    answer = recovery(
        stack, "recover", "--component", "redis", "--strategy", "reconnect", "--wait", "--json"
    )

    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert json.loads(answer.stdout)["after"]["healthy"]
    (entry,) = json.loads(recovery(stack, "history", "--json").stdout)
    assert entry["result"] == "recovered"
    assert entry["source"] == "cli"


def test_a_disabled_component_is_refused_with_its_own_code(stack: Stack, fleet: Fleet) -> None:
    fleet.start()
    recovery(stack, "disable", "--component", "redis", "--duration", "30m", "--reason", "night")

    answer = recovery(stack, "recover", "--component", "redis", "--strategy", "reconnect", "--wait")

    assert answer.returncode == 3
    assert "night" in answer.stdout


def test_an_approved_recovery_really_runs(stack: Stack, fleet: Fleet) -> None:
    fleet.start()
    stack.exhaust_clients()
    asked = recovery(
        stack,
        *("recover", "--component", "redis", "--strategy", "reconnect"),
        *("--require-approval", "--wait", "--json", "--by", "eva"),
    )
    assert asked.returncode == 4
    identity = json.loads(asked.stdout)["id"]

    approved = recovery(stack, "approve", identity[:8], "--by", "max", "--reason", "seen", "--wait")

    assert approved.returncode == 0, approved.stderr
    assert "recovered after" in approved.stdout
    record = stack.concluded(identity)
    assert record.decided_by == "max"
    assert stack.target.answers()


def test_a_dry_run_says_what_it_would_do_and_changes_nothing(stack: Stack, fleet: Fleet) -> None:
    fleet.start()
    stack.exhaust_clients()

    answer = recovery(
        stack, "recover", "--component", "redis", "--strategy", "reconnect", "--dry-run", "--wait"
    )

    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "would: stale connections killed" in answer.stdout
    assert not stack.target.answers()


def test_a_typo_is_answered_with_what_there_is(stack: Stack) -> None:
    answer = recovery(stack, "recover", "--component", "redis", "--strategy", "reconect")

    assert answer.returncode == 2
    assert "known: reconnect" in answer.stderr


def test_a_control_plane_that_is_away_has_its_own_code(stack: Stack) -> None:
    stack.environ["RECOVERY_REDIS_URL"] = "redis://127.0.0.1:1/0"

    assert recovery(stack, "status").returncode == 5


def test_a_snapshot_without_a_control_plane_says_so_at_once(stack: Stack) -> None:
    stack.policy_file.write_text("recovery: {chromadb: {targets: {default: {path: /nowhere}}}}\n")
    stack.environ["RECOVERY_REDIS_URL"] = "redis://127.0.0.1:1/0"

    answer = recovery(stack, "snapshot", "chromadb")

    assert answer.returncode == 5
    assert "control_plane_unavailable" in answer.stderr


def test_the_shipped_policy_can_be_shown(stack: Stack) -> None:
    answer = recovery(stack, "config", "show", str(ROOT / "recovery_config.yml"))

    assert answer.returncode == 0, answer.stderr
    assert "chromadb" in yaml.safe_load(answer.stdout)["recovery"]


def test_a_package_that_is_not_installed_is_named_in_one_line() -> None:
    script = (
        "import sys; sys.modules['httpx'] = None; sys.path.insert(0, '.')\n"
        "from recovery.cli import main; main(['probe', 'chromadb/default'])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert answer.returncode == 8, answer.stderr
    assert "setup_error: the package httpx is not installed" in answer.stderr


def test_an_id_is_shown_whole_beside_long_texts(capsys: pytest.CaptureFixture[str]) -> None:
    identity = "bba07dfa-2425-4a8d-bd55-90ab34a5e198"

    session.table("Recoveries", ("why", "found", "id"), [("why " * 30, "found " * 30, identity)])

    assert identity in capsys.readouterr().out


def test_a_wrong_policy_has_its_own_code(stack: Stack) -> None:
    stack.policy_file.write_text("recovery: {cooldown: 1}\n")

    answer = recovery(stack, "config", "check")

    assert answer.returncode == 6
    assert "unknown key" in answer.stderr


def test_one_recovery_is_read_whole_by_the_beginning_of_its_id(stack: Stack, fleet: Fleet) -> None:
    fleet.start()
    stack.exhaust_clients()
    asked = recovery(
        stack, "recover", "--component", "redis", "--strategy", "reconnect", "--wait", "--json"
    )
    identity = json.loads(asked.stdout)["id"]

    told = recovery(stack, "history", identity[:8])
    facts = recovery(stack, "history", identity[:8], "--json")

    assert told.returncode == 0, told.stderr
    assert identity in told.stdout
    assert "stale connections killed: killed" in told.stdout
    assert "before: clients_exhausted" in told.stdout
    assert "evidence:" in told.stdout
    assert json.loads(facts.stdout)["outcome"]["result"] == "recovered"


def test_what_was_refused_is_shown_by_its_id_too(stack: Stack, fleet: Fleet) -> None:
    fleet.start()
    recovery(stack, "disable", "--component", "redis", "--reason", "night")
    recovery(stack, "recover", "--component", "redis", "--strategy", "reconnect", "--wait")
    trail = json.loads(recovery(stack, "history", "--json").stdout)
    (entry,) = [one for one in trail if one["result"] == "refused"]

    told = recovery(stack, "history", entry["id"][:8])

    assert told.returncode == 0, told.stderr
    assert "result: refused" in told.stdout


def test_a_target_of_no_component_is_asked_about_instead_of_found_empty(stack: Stack) -> None:
    answer = recovery(stack, "history", "--target", "cache")

    assert answer.returncode == 2
    assert "redis/cache" in answer.stderr


def test_the_only_target_of_a_component_needs_no_name(stack: Stack, tmp_path: Path) -> None:
    folder = tmp_path / "named"
    folder.mkdir()
    file = write_policy(folder, {"cache": {"url": "redis://127.0.0.1:1/0"}})

    answer = recovery(
        stack, "--config", str(file), "test", "--component", "redis", "--strategy", "reconnect"
    )

    assert answer.returncode == 0, answer.stderr
    assert "target: redis/cache" in answer.stdout
    assert "probe: connection_error" in answer.stdout


def test_a_control_plane_that_is_away_is_said_with_where_it_should_be(stack: Stack) -> None:
    stack.environ["RECOVERY_REDIS_URL"] = "redis://:secret@127.0.0.1:1/0"
    configured = recovery(stack, "status")
    del stack.environ["RECOVERY_REDIS_URL"]
    embedded = recovery(stack, "status")

    assert "RECOVERY_REDIS_URL leads to redis://127.0.0.1:1/0" in configured.stderr
    assert "secret" not in configured.stdout + configured.stderr
    assert "recovery up" in embedded.stderr
    assert stack.environ["RECOVERY_STATE_DIR"] in embedded.stderr


def test_a_running_recovery_shows_how_far_it_is(stack: Stack, tmp_path: Path) -> None:
    ref = TargetRef.parse("redis/default")
    recovery_id = admit(stack, "half-done").recovery_id
    shelf = Shelf(directory=tmp_path)
    journal = RecordingJournal(
        stack.control,
        recovery_id,
        ref,
        deadline=Deadline(60),
        keeper=lambda: shelf.keep(recovery_id),
        scope=Scope(),
    )
    journal.progress("docs: index built", 45)

    (seen,) = [t for t in status_of(stack)["targets"] if t["target"] == str(ref)]
    assert (seen["doing"], seen["percent"]) == ("docs: index built", 45)
    assert "queued, 45 %" in recovery(stack, "status").stdout
    assert "45" in recovery(stack, "history", recovery_id).stdout

    journal.note("docs: index built and found right")
    (seen,) = [t for t in status_of(stack)["targets"] if t["target"] == str(ref)]
    assert (seen["doing"], seen["percent"]) == ("docs: index built and found right", None)


def status_of(stack: Stack) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(recovery(stack, "status", "--json").stdout)
    return said


def test_an_approval_that_the_gate_does_not_let_start_yet_is_listed_as_one() -> None:
    now = datetime.now(UTC)
    waiting = PendingApproval(
        id="3f2a",
        target="redis/default",
        strategy="restart_container",
        since=now,
        expires=now,
        failure_type="process_down",
        asked_by=None,
        reason=None,
        approved_by="eva",
    )

    assert "process_down (approved by eva; the gate is closed yet)" in approval_row(waiting)

"""The remedies under what our own units of systemd switch off; ``test_booted`` runs these, too."""

from __future__ import annotations

import configparser
import sys
from pathlib import Path

import pytest

from tests.fleet import ROOT
from tests.units import Manager
from tests.waiting import until

UNITS = ("recovery-worker@.service", "recovery-up.service")
NOT_OF_THE_SANDBOX = frozenset({
    *("Type", "NotifyAccess", "WatchdogSec", "User", "EnvironmentFile", "Environment"),
    *("ExecStart", "Restart", "RestartSec", "RestartPreventExitStatus", "KillMode"),
    *("TimeoutStopSec", "StateDirectory", "StateDirectoryMode", "UMask"),
})  # fmt: skip
REMEDIES = (
    "tests/components/system/test_file_handle_cleanup.py",
    "tests/components/system/test_old_logs.py",
)
QUIET = "-q -p no:cacheprovider --color=no"


def sandbox(unit: str) -> list[str]:
    """What the unit forbids, line by line."""
    found = configparser.RawConfigParser(strict=False, interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read(ROOT / "compose" / "systemd" / unit)
    return [
        f"{key}={value}" for key, value in found["Service"].items() if key not in NOT_OF_THE_SANDBOX
    ]


@pytest.mark.parametrize("unit", [*UNITS, "recovery-http.service", "recovery-flower.service"])
def test_a_system_call_that_is_not_allowed_fails_and_kills_nobody(unit: str) -> None:
    assert "SystemCallErrorNumber=EPERM" in sandbox(unit)


@pytest.mark.parametrize("unit", UNITS)
def test_the_remedies_work_under_what_the_unit_forbids(
    systemd: Manager, tmp_path: Path, unit: str
) -> None:
    if systemd.scope != "system":
        pytest.skip("a user's manager cannot set up all of it")
    said = tmp_path / "said"
    forbidden = sandbox(unit)
    assert "SystemCallFilter" in " ".join(forbidden)
    command = f"{sys.executable} -m pytest {QUIET} --basetemp={tmp_path}/inner {' '.join(REMEDIES)}"
    name = systemd.write(
        "\n".join(
            [
                *forbidden,
                f"ExecStart={command}",
                f"WorkingDirectory={ROOT}",
                "Environment=PYTHONDONTWRITEBYTECODE=1",
                f"StandardOutput=file:{said}",
                f"StandardError=file:{said}",
            ]
        )
    )
    service = systemd.open(name)

    service.start()
    until(lambda: not service.inspect().running, seconds=120, what="the tests have ended")

    assert service.inspect().detail == "inactive (dead)", said.read_text()[-5000:]

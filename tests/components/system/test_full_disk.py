"""Control Redis, state, logs and audit on the very disk that is full, which is cleaned anyway."""

from __future__ import annotations

from pathlib import Path

import pytest

from recovery.components.system.filesystems import Usage
from recovery.events import Result
from tests.components.system.conftest import Mount, fill_up
from tests.components.system.cramped import accepted, cleaned, living_on
from tests.waiting import until

RESERVE_MB = 2


@pytest.mark.timeout(600)
@pytest.mark.kill
@pytest.mark.slow
def test_a_full_disk_that_holds_all_of_ours_is_cleaned_and_the_audit_tells_of_it(
    mount: Mount, tmp_path: Path
) -> None:
    full = mount(48)
    reserve = full / "state" / "reserve"
    failsafe = {"reserve_mb": RESERVE_MB, "interval_seconds": 1}
    with living_on(full, tmp_path, failsafe=failsafe) as (host, ours):
        until(reserve.exists, seconds=60, what="the guard has its reserve")
        fill_up(full / "tmp", 0.5)
        fill_up(full / "tmp" / "small", 0.004)

        until(lambda: accepted(host, "disk_full"), seconds=60, what="an event is accepted")
        done = until(lambda: cleaned(host), seconds=240, what="its entry is in the audit")

        assert done["result"] == Result.RECOVERED, ours.said()
        assert Usage.of(str(full)).percent < 80
        assert "the reserve is given up" in ours.said()
        until(reserve.exists, seconds=30, what="it is taken back")

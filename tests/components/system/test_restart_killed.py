"""``process_restart`` whose worker is killed at any moment, again and again: one process, always.

``RECOVERY_KILLS``: how often, where somebody wants to know for sure.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

import psutil
import pytest

from recovery import records
from recovery.events import Result
from tests.components.system.conftest import HOST, HostStack
from tests.components.system.test_process_restart import SERVER
from tests.components.system.test_restart_by_workers import RESTART, started
from tests.fleet import Fleet
from tests.servers import free_port
from tests.waiting import until

__all__ = ["started"]

KILLS = int(os.environ.get("RECOVERY_KILLS", "2"))
LONGEST_WAIT = 2.5
"""By then a restart of this server is over, killed or not."""

LIMITS = {
    "max_attempts_per_hour": 1000,
    "effective_after_seconds": 0.001,
    "cooldown_seconds": 0.001,
    "probation_seconds": 0.001,
}


def running(server: Path) -> set[int]:
    """Every process of that program, whoever started it."""
    return {
        one.pid
        for one in psutil.process_iter(["cmdline", "status"])
        if str(server) in (one.info["cmdline"] or ())
        and one.info["status"] != psutil.STATUS_ZOMBIE
        and "daemonize" not in " ".join(one.info["cmdline"])
    }


def concluded(host: HostStack, sent: str) -> records.Recovery:
    found = until(lambda: host.concluded(sent), seconds=120, what="it is concluded")
    assert found is not None
    return found


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.usefixtures("started")
def test_a_worker_killed_at_any_moment_leaves_one_process_and_a_proven_restart(
    host: HostStack, fleet: Fleet, tmp_path: Path
) -> None:
    server = tmp_path / "server.py"
    server.write_text(SERVER)
    port = free_port()
    start = [sys.executable, str(server), str(port)]
    runtime = {"kind": "command", "name": "app", "start": start, "folder": str(tmp_path)}
    app = {"url": f"http://127.0.0.1:{port}/", "runtime": runtime}
    host.write_policy_of(
        {HOST: {"watch": ["processes"], "processes": {"app": app}}},
        {**RESTART, "stop_grace": 0.5},
        **LIMITS,
    )
    fleet.start(queues=("dispatch", "notify", "maintenance"))
    queue = (f"system.{HOST}",)
    victim = fleet.start(queues=queue, beat=False, concurrency=1)
    assert host.recover("process_unresponsive").outcome is not None
    most = 0

    for number in range(KILLS):
        (before,) = running(server)
        (tmp_path / "hang").write_text(str(before))
        sent = host.trigger("process_unresponsive")
        wait = random.uniform(0, LONGEST_WAIT)
        ends = time.monotonic() + wait
        while time.monotonic() < ends:
            most = max(most, len(running(server)))
            time.sleep(0.02)
        victim.kill()
        most = max(most, len(running(server)))
        victim = fleet.start(queues=queue, beat=False, concurrency=1)

        record = concluded(host, sent)

        said = f"round {number}, killed after {wait:.2f} s"
        assert record.outcome is not None
        assert record.outcome.result is Result.RECOVERED, f"{said}: {record.outcome}"
        after = running(server)
        assert len(after) == 1, said
        assert before not in after, said
    assert most == 1, "two of them at once"

"""``process_restart`` by real workers: of a worker that hangs, and by one that is killed in it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recovery import heard
from recovery.components.system.probe import probe
from recovery.components.system.target import HostTarget
from recovery.events import Result, Verdict
from tests.components.system.conftest import QUEUES, HostStack
from tests.components.system.test_process_restart import SERVER
from tests.fleet import ROOT, Fleet
from tests.servers import free_port
from tests.waiting import until

RESTART = {
    "name": "process_restart",
    "requires_approval": False,
    "stop_grace": 1,
    "timeout_seconds": 60,
    "conditions": ["process_unresponsive", "worker_hung"],
}


@pytest.fixture
def started(state_dir: Path) -> Iterator[None]:
    """What a ``command`` runtime has put into the background ends with the test."""
    yield
    for pid_file in (state_dir / "run").glob("*.pid"):
        try:
            os.killpg(int(pid_file.read_text().split()[0]), signal.SIGKILL)
        except ProcessLookupError:
            continue


def helper(host: HostStack, tmp_path: Path) -> dict[str, Any]:
    """A supervised worker whose supervisor is too patient to notice that it went deaf."""
    worker = {"node": "helper@web-1", "queues": ["elsewhere"], "concurrency": 1}
    spec = json.dumps({"workers": [worker | {"app": "tests.deaf_app"}], "deaf_after": 3600})
    # What our own settings say reaches no program of a runtime, so this one brings its own.
    names = [name for name in host.environ if name.startswith("RECOVERY_")]
    settings = [f"{name}={host.environ[name]}" for name in names]
    start = ["env", *settings, f"DEAF_FILE={tmp_path / 'deaf'}"]
    start += [sys.executable, "-m", "tests.supervising", spec]
    log = str(tmp_path / "helper.log")
    runtime = {"kind": "command", "name": "helper", "start": start, "folder": str(ROOT)}
    return {"worker": "helper", "heartbeat_seconds": 12, "runtime": {**runtime, "log_file": log}}


def pid_of(name: str) -> int | None:
    return next((pid for pid, _ in heard.living(name)), None)


@pytest.mark.kill
@pytest.mark.usefixtures("started")
def test_a_worker_of_ours_that_takes_nothing_is_hung_and_restarted(
    host: HostStack, fleet: Fleet, tmp_path: Path
) -> None:
    target = {"watch": ["processes"], "processes": {"helper": helper(host, tmp_path)}}
    host.write_policy(target, RESTART)
    fleet.start(queues=QUEUES)
    first_start = host.recover("process_unresponsive")
    assert first_start.outcome is not None
    assert first_start.outcome.result is Result.RECOVERED, fleet.logs()
    assert first_start.outcome.before is not None
    assert "helper does not run" in first_start.outcome.before.summary
    first = pid_of("helper")

    (tmp_path / "deaf").touch()
    model = HostTarget.model_validate(target)
    until(
        lambda: probe(model, 2).failure_type == "worker_hung",
        seconds=60,
        what="it lives and takes no message",
    )
    assert pid_of("helper") == first
    record = host.recover("worker_hung")

    assert record.outcome is not None
    assert record.outcome.result is Result.RECOVERED, fleet.logs()
    assert record.outcome.before is not None
    assert record.outcome.before.failure_type == "worker_hung"
    assert pid_of("helper") not in {None, first}
    assert probe(model, 2).healthy


@pytest.mark.kill
@pytest.mark.usefixtures("started")
def test_a_restart_whose_worker_is_killed_is_ended_by_another(
    host: HostStack, fleet: Fleet, tmp_path: Path, state_dir: Path
) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "stubborn").touch()
    port = free_port()
    start = [sys.executable, str(tmp_path / "server.py"), str(port)]
    runtime = {"kind": "command", "name": "app", "start": start, "folder": str(tmp_path)}
    app = {"url": f"http://127.0.0.1:{port}/", "runtime": runtime}
    host.write_policy(
        {"watch": ["processes"], "processes": {"app": app}}, {**RESTART, "stop_grace": 8}
    )
    victim = fleet.start(queues=QUEUES, beat=False)
    assert host.recover("process_unresponsive").outcome is not None
    pid_file = state_dir / "run" / "app.pid"
    first = pid_file.read_text()
    (tmp_path / "hang").write_text(first.split()[0])

    sent = host.trigger("process_unresponsive")
    steps = host.control.key("steps", sent)
    until(
        lambda: "app found" in " ".join(host.control.redis.lrange(steps, 0, -1)),
        seconds=20,
        what="it waits for its end after TERM",
    )
    victim.kill()
    fleet.start(queues=QUEUES)

    record = until(lambda: host.concluded(sent), seconds=90, what="it is concluded")
    assert record is not None
    assert record.outcome is not None
    assert record.outcome.result is Result.RECOVERED, fleet.logs()
    assert pid_file.read_text() != first
    assert record.resumed >= 1


def test_a_restart_waits_for_a_person_by_default(host: HostStack, fleet: Fleet) -> None:
    conditions = {"name": "process_restart", "conditions": ["process_unresponsive"]}
    host.write_policy({"watch": ["processes"], "processes": {"no-such-program": {}}}, conditions)
    fleet.start(queues=QUEUES)

    sent = host.trigger("process_unresponsive")

    pending = host.control.key("pending")
    until(lambda: host.control.redis.hexists(pending, sent), seconds=20, what="it waits")
    assert (
        host.control.redis.hget(host.control.key("recovery", sent), "state")
        == Verdict.AWAITING_APPROVAL
    )

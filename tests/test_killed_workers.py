"""Workers killed with SIGKILL at every stage of a recovery: one conclusion, and no act twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from recovery import audit, records
from recovery.controlplane import ControlPlane
from recovery.errors import UnknownRecovery
from recovery.events import Result, State
from tests.fleet import DEFAULT_QUEUES, Fleet, Worker
from tests.stack import Stack
from tests.waiting import until

pytestmark = pytest.mark.kill

STAGES = ("dispatch", "claim", "act", "acted", "conclude")


def kill_pool_process(worker: Worker, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def kill_whole_worker(worker: Worker, pid: int) -> None:
    worker.kill()


@pytest.mark.parametrize("kill", [kill_pool_process, kill_whole_worker])
@pytest.mark.parametrize("stage", STAGES)
def test_a_recovery_survives_the_death_of_its_worker(
    stage: str, kill: Callable[[Worker, int], None], stack: Stack, fleet: Fleet
) -> None:
    control = stack.control
    victim = fleet.start(app="tests.faulty_app", environ={"FAULT_AT": stage}, beat=False)
    stack.exhaust_clients()
    recovery_id = stack.trigger("connection_error")
    pid = int(until(lambda: control.redis.get(control.key("fault:pid")), what=f"reached {stage}"))
    # At once: the remedy's time runs, and another worker takes seconds to start.
    kill(victim, pid)
    # One connection is free after a pool process is killed, and its successor takes that: on the
    # full server whoever else took the message would be shut out.
    at_the_door = {"redis"} if kill is kill_pool_process else set()
    fleet.start(app="tests.faulty_app", queues=[q for q in DEFAULT_QUEUES if q not in at_the_door])

    record = until(lambda: concluded(control, recovery_id), seconds=60, what="concluded")

    assert record.outcome is not None
    assert record.outcome.result is Result.RECOVERED, fleet.logs()
    assert control.redis.exists(control.key("lease", record.target)) == 0
    assert entries(control, recovery_id) == 1
    assert int(control.redis.get(control.key("fault:acts")) or 0) == 1


def test_a_dead_workers_lease_is_free_within_ten_seconds(stack: Stack, fleet: Fleet) -> None:
    control = stack.control
    victim = fleet.start(app="tests.faulty_app", environ={"FAULT_AT": "act"}, beat=False)
    stack.exhaust_clients()
    recovery_id = stack.trigger("connection_error")
    until(lambda: control.redis.get(control.key("fault:pid")), what="reached act")
    fleet.start(app="tests.faulty_app", queues=("maintenance", "redis"))

    victim.kill()

    until(lambda: concluded(control, recovery_id), seconds=10, what="concluded")
    assert control.redis.zcard(control.key("leases")) == 0


def concluded(control: ControlPlane, recovery_id: str) -> records.Recovery | None:
    try:
        record = records.load(control, recovery_id)
    except UnknownRecovery:
        return None
    return record if record.state is State.CONCLUDED else None


def entries(control: ControlPlane, recovery_id: str) -> int:
    found = audit.history(control, since=audit.last_hours(1))
    return sum(entry.fields.get("id") == recovery_id for entry in found)

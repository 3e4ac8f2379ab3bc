"""Workers of two hosts in containers of our own image: what breaks around them, they survive."""

from __future__ import annotations

import pytest

from recovery.events import Result
from tests.smoke.conftest import PATIENCE, Cluster
from tests.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]


def host_of(holder: str | None) -> str:
    return (holder or "").partition(":")[0]


def repaired(cluster: Cluster, recovery_id: str) -> str:
    """Proven repaired, and the host that did it."""
    record = cluster.concluded(recovery_id)
    assert record.outcome is not None
    assert record.outcome.result is Result.RECOVERED, record.outcome
    assert cluster.target.answers()
    return host_of(record.holder)


def test_two_hosts_repair_and_survive_what_breaks_around_them(cluster: Cluster) -> None:
    """One cluster for all of it: starting one takes longer than breaking it."""
    cluster.break_target()
    assert repaired(cluster, cluster.trigger("bound")) == "host-b"

    # A host that hangs, with its queue full: the other queues go on.
    cluster.containers["host-b"].pause()
    stuck = [cluster.trigger("bound", dry_run=True) for _ in range(20)]
    cluster.break_target()
    assert repaired(cluster, cluster.trigger()) == "host-a"
    cluster.containers["host-b"].unpause()
    for recovery_id in stuck:
        record = cluster.concluded(recovery_id)
        assert host_of(record.holder) == "host-b"
    until(cluster.is_whole, seconds=PATIENCE, what="host-b is back")

    # The broker restarts under them.
    cluster.broker.container.restart(timeout=5)
    until(cluster.is_whole, seconds=PATIENCE, what="both hosts are back after the broker")
    cluster.break_target()
    assert repaired(cluster, cluster.trigger()) in {"host-a", "host-b"}

    # A whole host is killed: the other one takes over what either may do.
    cluster.workers["host-b"].container.kill(signal="SIGKILL")
    cluster.break_target()
    assert repaired(cluster, cluster.trigger()) == "host-a"
    until(lambda: cluster.alive() == {"host-a"}, seconds=PATIENCE, what="host-b is taken for dead")


def test_the_image_is_not_root_and_says_what_it_is(cluster: Cluster) -> None:
    worker = cluster.workers["host-a"].container

    _, who = worker.exec_run(["id", "-u"])
    code, _ = worker.exec_run(["recovery", "workers", "--alive", "recovery"])
    nobody, _ = worker.exec_run(["recovery", "workers", "--alive", "nobody"])
    _, written = worker.exec_run(["sh", "-c", "touch /opt/recovery/x 2>&1"])

    assert who.decode().strip() == "10001"
    assert (code, nobody) == (0, 1)
    assert b"Read-only file system" in written

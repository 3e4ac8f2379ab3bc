"""Two hosts with networks of their own: each is repaired by itself, and a dead one is told of."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from recovery import registry
from recovery.events import Result
from recovery.records import Recovery
from tests.components.system.conftest import HostStack
from tests.components.system.test_process_restart import SERVER
from tests.namespaces import NetHost, net_host
from tests.servers import RedisServer
from tests.waiting import until

PORT = 9000
NAMES = ("web-1", "web-2")
RESTART = {
    "name": "process_restart",
    "requires_approval": False,
    "timeout_seconds": 60,
    "conditions": ["process_unresponsive"],
}

pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(700)]


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[NetHost]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(net_host(name, number, tmp_path))
            for number, name in enumerate(NAMES, start=1)
        ]


@pytest.fixture
def control_redis(tmp_path: Path, hosts: list[NetHost]) -> Iterator[RedisServer]:
    """One that both hosts can reach."""
    bound = " ".join(["127.0.0.1", *(host.gateway for host in hosts)])
    options = {"bind": bound, "protected-mode": "no", "appendonly": "yes"}
    server = RedisServer(tmp_path / "control", options).start()
    yield server
    server.stop()


@pytest.fixture
def pair(host: HostStack, hosts: list[NetHost], control_redis: RedisServer) -> list[NetHost]:
    """Both run a worker that was told no queue; the first also the schedule."""
    (host.folder / "server.py").write_text(SERVER)
    start = [sys.executable, str(host.folder / "server.py"), str(PORT)]
    runtime = {"kind": "command", "name": "app", "start": start, "folder": str(host.folder)}
    app = {"url": f"http://127.0.0.1:{PORT}/", "runtime": runtime}
    targets: dict[str, Any] = {
        n: {"watch": ["processes"], "processes": {"app": app}} for n in NAMES
    }
    limits = {"max_attempts_per_hour": 100}
    host.write_policy_of(targets, RESTART, sections={"failsafe": {"enabled": False}}, **limits)
    for one in hosts:
        one.environ |= {
            "RECOVERY_CONFIG": host.environ["RECOVERY_CONFIG"],
            "RECOVERY_REDIS_URL": f"redis://{one.gateway}:{control_redis.port}/0",
            "RECOVERY_STATE_DIR": str(host.folder / f"state-{one.name}"),
            "RECOVERY_HOST": one.name,
        }
    hosts[0].start_worker("--beat")
    hosts[1].start_worker()
    until(lambda: living(host) == list(NAMES), seconds=120, what="both hosts have a worker")
    return hosts


def living(host: HostStack) -> list[str]:
    return list(registry.hosts_of("system", registry.workers(host.control)))


def recovered(host: HostStack, pair: list[NetHost], name: str) -> Recovery:
    sent = host.trigger("process_unresponsive", target=name)
    record = until(lambda: host.concluded(sent), seconds=300, what=f"{name} is repaired")
    assert record is not None
    assert record.outcome is not None
    said = "\n".join(one.said() for one in pair)
    assert record.outcome.result is Result.RECOVERED, said
    return record


def pid_of_app(host: HostStack, name: str) -> int:
    path = host.folder / f"state-{name}" / "run" / "app.pid"
    return int(path.read_text().split()[0])


def test_an_event_for_one_host_never_runs_on_the_other(
    host: HostStack, pair: list[NetHost]
) -> None:
    consuming = {
        one.worker.host
        for one in registry.workers(host.control)
        if "system.web-1" in one.worker.queues
    }
    assert consuming == {"web-1"}
    assert "this host's own targets" in pair[0].said()

    before: dict[str, int] = {}
    for name in NAMES:
        record = recovered(host, pair, name)

        assert (record.holder or "").startswith(f"{name}:")
        # Each loopback interface has this port, and leads to another process.
        assert all(pid_of_app(host, other) == pid for other, pid in before.items())
        before[name] = pid_of_app(host, name)
    for one in pair:
        assert before[one.name] in one.pids()


def test_an_event_for_a_dead_host_ends_in_an_alert_and_a_living_one_is_served_again(
    host: HostStack, pair: list[NetHost]
) -> None:
    recovered(host, pair, "web-2")
    pair[1].power_off()

    record = host.recover("process_unresponsive", target="web-2")

    assert record.outcome is not None
    assert record.outcome.result is Result.UNCLAIMED
    assert "no live worker consumes queue system.web-2" in record.outcome.detail
    until(lambda: alerts(pair[0], record.id), seconds=30, what="the alert is delivered")
    (entry,) = [text for text in audited(host) if record.id in text]
    assert "no live worker consumes queue system.web-2" in entry

    pair[1].start_worker()
    until(lambda: living(host) == list(NAMES), seconds=120, what="it is back")
    recovered(host, pair, "web-2")


def alerts(one: NetHost, recovery_id: str) -> list[str]:
    lines = one.said().splitlines()
    return [line for line in lines if "event=alert" in line and recovery_id in line]


def audited(host: HostStack) -> list[str]:
    return [said["entry"] for _, said in host.control.redis.xrange(host.control.key("audit"))]

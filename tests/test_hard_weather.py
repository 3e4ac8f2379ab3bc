"""Real servers that come and go, and several that fail at once: seen by the schedule alone."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from recovery import audit
from recovery.events import TargetRef
from recovery.observations import Observed
from tests.fleet import Fleet
from tests.policies import write_policy
from tests.servers import RedisServer
from tests.stack import Stack
from tests.test_detection_end_to_end import await_state, seen
from tests.waiting import until

PATIENCE = 90.0
NAMES = ("root", "leaf", "c", "d", "e")

pytestmark = [pytest.mark.kill, pytest.mark.slow]


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[dict[str, RedisServer]]:
    with ExitStack() as opened:
        found = {name: RedisServer(tmp_path / name).start() for name in NAMES}
        for server in found.values():
            opened.callback(server.stop)
        yield found


def watch(stack: Stack, fleet: Fleet, targets: dict[str, Any], **detection: Any) -> None:
    write_policy(
        stack.policy_file.parent,
        targets,
        recovery={"max_attempts_per_hour": 50, "cooldown_seconds": 1},
        sections={
            "detection": {"every": 1, "confirm_after": 0.2, **detection},
            "integration": {"health_check_interval_seconds": 2},
        },
    )
    fleet.start()
    fleet.start(queues=("probe.redis",), pool="threads", concurrency=4, beat=False)


def results(stack: Stack, target: str) -> list[str]:
    return [
        str(entry.fields["result"])
        for entry in audit.latest(stack.control, 500)
        if entry.fields.get("target") == target
    ]


def test_a_storm_of_real_servers_holds_all_but_their_foundation_until_it_is_over(
    stack: Stack, fleet: Fleet, servers: dict[str, RedisServer]
) -> None:
    targets: dict[str, Any] = {name: {"url": servers[name].url} for name in NAMES}
    targets["leaf"]["depends_on"] = ["redis/root"]
    watch(stack, fleet, targets, storm={"share": 0.5, "least": 3, "calm": "3s"})
    for name in NAMES:
        await_state(stack, TargetRef("redis", name), Observed.HEALTHY)

    for name in ("root", "c", "d", "e"):
        servers[name].kill()

    until(lambda: "storm" in results(stack, "all"), seconds=PATIENCE, what="somebody is called")
    until(
        lambda: (found := seen(stack, TargetRef("redis", "e"))) and found.state is Observed.HELD,
        seconds=PATIENCE,
        what="what nobody stands on is held",
    )
    until(lambda: "failed" in results(stack, "redis/root"), seconds=PATIENCE, what="root is tried")

    for name in ("root", "c", "d", "e"):
        servers[name].start()

    for name in NAMES:
        await_state(stack, TargetRef("redis", name), Observed.HEALTHY)
    until(lambda: "storm_over" in results(stack, "all"), seconds=PATIENCE, what="it is over")
    assert results(stack, "all").count("storm") == 1, fleet.logs()


def test_a_server_that_comes_and_goes_is_left_alone_until_it_stays(
    stack: Stack, fleet: Fleet
) -> None:
    target = TargetRef("redis")
    server = stack.target
    watch(
        stack,
        fleet,
        {"default": {"url": server.url, "probe": {"timeout": "500ms", "failures": 1, "of": 1}}},
        flapping={"changes": 4, "window": "10m", "hold": "5s"},
        storm={"least": 50},
    )
    await_state(stack, target, Observed.HEALTHY)

    def is_held() -> bool:
        return "flapping" in results(stack, str(target))

    for _ in range(10):
        server.send_signal(signal.SIGSTOP)
        until(lambda: seen_healthy(stack, target) is False or is_held(), seconds=PATIENCE)
        server.send_signal(signal.SIGCONT)
        until(lambda: seen_healthy(stack, target) or is_held(), seconds=PATIENCE)
        if is_held():
            break

    assert is_held(), fleet.logs()
    assert stack.control.redis.hget(stack.control.key("target", target), "level") == "3"
    await_state(stack, target, Observed.HEALTHY)
    assert not stack.control.redis.exists(stack.control.key("flapping", target))


def seen_healthy(stack: Stack, target: TargetRef) -> bool | None:
    found = seen(stack, target)
    return found.healthy if found else None

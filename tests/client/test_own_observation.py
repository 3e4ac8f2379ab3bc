"""What an application sees of its own Redis, where nobody else could tell it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio

import recovery.client
from recovery import degraded
from recovery.client.listener import LISTENER
from recovery.client.pools import renewable
from recovery.modes import SHIPPED
from tests.client.conftest import TARGET
from tests.servers import RedisServer, black_hole, filled, free_port
from tests.waiting import until

LOST = SHIPPED["redis_unavailable"].unavailable


@pytest.fixture
def alone() -> Iterator[None]:
    """The control plane was never there."""
    recovery.client.stop()
    recovery.client.start(f"redis://127.0.0.1:{free_port()}/0")
    yield
    recovery.client.stop()


def becomes(expected: bool, what: str = "") -> None:
    until(lambda: degraded.may_use("multi_session_state") is expected, seconds=40, what=what)


@pytest.mark.kill
@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_a_dead_redis_is_known_though_the_control_plane_never_answered(
    alone: None, redis_server: RedisServer, kind: str
) -> None:
    made: Any = redis if kind == "threads" else redis.asyncio
    cache = recovery.client.protect(made.Redis.from_url(redis_server.url), target=TARGET)
    assert degraded.is_stale()
    assert degraded.may_use("multi_session_state")

    redis_server.kill()
    becomes(False, "the loss is noticed")

    (mode,) = degraded.modes()
    assert (mode.target, mode.mode, mode.is_own) == (TARGET, "redis_unavailable", True)
    assert mode.recovery_id == ""
    assert mode.unavailable == LOST
    assert degraded.may_use("in_memory_cache")
    redis_server.start()
    becomes(True, "the return is noticed")
    asyncio.run(cache.aclose()) if kind == "asyncio" else cache.close()


@pytest.mark.kill
def test_both_lost_at_once_are_known_and_both_found_again(
    listening: None, control_redis: RedisServer, redis_server: RedisServer
) -> None:
    cache = recovery.client.protect(redis_server.client(), target=TARGET)
    assert not degraded.is_stale()

    control_redis.kill()
    redis_server.kill()

    becomes(False)
    assert degraded.is_stale()
    redis_server.start()
    becomes(True)
    assert degraded.is_stale()
    control_redis.start()
    until(lambda: not degraded.is_stale(), seconds=40)
    cache.close()


@pytest.mark.kill
def test_what_was_reported_is_looked_at_though_the_control_plane_is_well(
    listening: None, redis_server: RedisServer
) -> None:
    cache = recovery.client.protect(redis_server.client(), target=TARGET)
    redis_server.kill()
    assert degraded.may_use("multi_session_state")

    try:
        cache.ping()
    except redis.RedisError as error:
        recovery.client.report(error, target=TARGET)

    becomes(False)
    redis_server.start()
    becomes(True)
    cache.close()


def test_a_report_of_what_works_after_all_changes_nothing(
    listening: None, redis_server: RedisServer
) -> None:
    cache = recovery.client.protect(redis_server.client(), target=TARGET)
    looked = until_looked(redis_server)

    recovery.client.report("connection_error", target=TARGET)

    until(lambda: until_looked(redis_server) > looked, what="it was looked at")
    assert degraded.may_use("multi_session_state")
    cache.close()


def until_looked(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.info("commandstats").get("cmdstat_ping", {}).get("calls", 0))


@pytest.mark.parametrize("kind", [redis.Redis, redis.asyncio.Redis])
def test_a_look_is_bounded_and_sees_what_a_caller_would_meet(
    redis_server: RedisServer, kind: Any
) -> None:
    def works(port: int, **options: Any) -> bool:
        pool = kind(port=port, socket_timeout=None, **options).connection_pool
        return renewable(pool).answers()

    assert works(redis_server.port)
    assert not works(free_port())
    with black_hole() as port:
        assert not works(port)
    redis_server.send_signal(signal.SIGSTOP)
    assert not works(redis_server.port)
    redis_server.send_signal(signal.SIGCONT)
    assert until(lambda: works(redis_server.port))
    with redis_server.client() as client:
        client.config_set("requirepass", "right")
    assert not works(redis_server.port)
    assert works(redis_server.port, password="right")


def test_a_full_server_does_not_work_for_who_has_no_connection(redis_server: RedisServer) -> None:
    leaked = filled(redis_server)
    pool = redis_server.client().connection_pool

    assert not renewable(pool).answers()

    for connection in leaked:
        connection.close()


def test_an_observation_that_nobody_repeats_is_forgotten(
    alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recovery.client.knowledge.OWN_SECONDS", 0.2)

    LISTENER.knowledge.see("openwebui/default", works=False)

    assert not degraded.may_use("model_switching")
    until(lambda: degraded.may_use("model_switching"))


def test_subscribers_hear_each_change_once_and_a_failing_one_disturbs_nobody(
    alone: None, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[tuple[str, bool]] = []

    def fail(change: degraded.Change) -> None:
        raise ValueError(change.mode.mode)

    end: Callable[[], None] = degraded.subscribe(fail)
    degraded.subscribe(lambda change: heard.append((change.mode.mode, change.active)))

    LISTENER.knowledge.see(TARGET, works=False)
    LISTENER.knowledge.see(TARGET, works=False)
    LISTENER.knowledge.see(TARGET, works=True)
    end()
    LISTENER.knowledge.see(TARGET, works=False)

    assert heard == [
        ("redis_unavailable", True),
        ("redis_unavailable", False),
        ("redis_unavailable", True),
    ]
    assert caplog.text.count("a subscriber failed") == 2

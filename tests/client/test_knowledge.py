"""What an application knows of degraded modes, while the control plane lives, is away, is back."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import recovery.client
from recovery import degraded
from recovery.admission import ask
from recovery.conclusion import STALE_LEASE, conclude
from recovery.config import Policy
from recovery.controlplane import ControlPlane
from recovery.errors import ConfigError
from recovery.events import FailureEvent, Outcome, Result, TargetRef
from recovery.records import load
from tests.client.conftest import TARGET
from tests.policies import make_policy
from tests.servers import RedisServer
from tests.waiting import until

Tell = Callable[[], None]


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    modes = {
        "redis_unavailable": {
            "available_capabilities": [],
            "unavailable_capabilities": ["long_term_memory", "persistent_storage"],
        }
    }
    return make_policy(tmp_path, {"cache": {}}, sections={"degraded_modes": modes})


def end(control: ControlPlane, policy: Policy, identity: str, result: Result) -> None:
    """A recovery of the target that is admitted and ends so."""
    target = TargetRef.parse(TARGET)
    control.redis.delete(control.key("cooldown", target))
    event = FailureEvent(id=identity, target=target, failure_type="connection_error")
    ask(control, policy, event, "reconnect")
    control.redis.hset(control.key("lease", target), "expires", 0)
    conclude(control, policy, load(control, identity), Outcome(result=result), STALE_LEASE)


def knows(capability: str, *, may: bool) -> None:
    until(lambda: degraded.may_use(capability) is may, seconds=40, what=capability)


def test_a_mode_is_heard_with_its_capabilities_and_its_end_too(
    listening: None, control: ControlPlane, policy: Policy
) -> None:
    assert degraded.may_use("long_term_memory")

    end(control, policy, "1", Result.FAILED)

    knows("long_term_memory", may=False)
    assert degraded.may_use("basic_conversation")
    (mode,) = degraded.modes()
    assert (mode.target, mode.mode, mode.recovery_id) == (TARGET, "redis_unavailable", "1")
    assert mode.available == ()
    assert mode.unavailable == ("long_term_memory", "persistent_storage")
    end(control, policy, "2", Result.RECOVERED)
    knows("long_term_memory", may=True)
    assert degraded.modes() == ()


def test_a_mode_that_is_already_there_is_read_at_the_start(
    control: ControlPlane, control_redis: RedisServer, policy: Policy
) -> None:
    end(control, policy, "1", Result.FAILED)

    recovery.client.stop()
    assert recovery.client.start(control_redis.url, wait=20)

    assert not degraded.may_use("persistent_storage")
    recovery.client.stop()
    assert degraded.may_use("persistent_storage")


@pytest.mark.kill
def test_the_last_knowledge_holds_while_the_control_plane_is_away(
    listening: None,
    control: ControlPlane,
    control_redis: RedisServer,
    redis_server: RedisServer,
    policy: Policy,
    tell: Tell,
) -> None:
    cache = recovery.client.protect(redis_server.client(), target=TARGET, jitter=0)
    first = cache.client_id()
    end(control, policy, "1", Result.FAILED)
    knows("long_term_memory", may=False)

    control_redis.kill()
    known = degraded.age()
    assert known is not None
    until(lambda: (degraded.age() or 0) > known, what="the knowledge grows old")
    assert not degraded.may_use("long_term_memory")
    assert cache.client_id() == first

    control_redis.start()
    end(control, policy, "2", Result.RECOVERED)
    knows("long_term_memory", may=True)
    until(lambda: tell() or cache.client_id() != first, what="notices are heard again")
    cache.close()


def test_a_control_plane_that_accepts_and_says_nothing_is_left_and_tried_again(
    control_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    recovery.client.stop()
    control_redis.send_signal(signal.SIGSTOP)
    assert not recovery.client.start(control_redis.url)

    until(lambda: "is away" in caplog.text, what="the silence is noticed")
    control_redis.send_signal(signal.SIGCONT)

    assert recovery.client.start(control_redis.url, wait=20)
    recovery.client.stop()


def test_a_process_follows_one_control_plane(
    listening: None, control_redis: RedisServer, redis_server: RedisServer
) -> None:
    assert recovery.client.start(control_redis.url)
    assert recovery.client.start()
    with pytest.raises(ConfigError, match="one control plane"):
        recovery.client.start(redis_server.url)


def test_an_address_named_after_the_first_use_is_gone_over_to(
    control: ControlPlane, control_redis: RedisServer, policy: Policy
) -> None:
    end(control, policy, "1", Result.FAILED)
    recovery.client.stop()
    recovery.client.listener.LISTENER.is_settled = False
    degraded.may_use("long_term_memory")

    assert recovery.client.start(control_redis.url, wait=20)

    assert not degraded.may_use("long_term_memory")
    recovery.client.stop()


def test_a_notice_that_nobody_heard_is_caught_up_with(
    listening: None, control: ControlPlane, redis_server: RedisServer, tell: Tell
) -> None:
    cache = recovery.client.protect(redis_server.client(), target=TARGET, jitter=0)
    first = cache.client_id()

    # The listener comes back after a pause; a notice is told once, in this moment.
    control.redis.client_kill_filter(_type="pubsub")
    tell()

    until(lambda: cache.client_id() != first)
    cache.close()


def test_a_notice_from_before_the_start_renews_nothing(
    control: ControlPlane, control_redis: RedisServer, redis_server: RedisServer, tell: Tell
) -> None:
    tell()
    recovery.client.stop()
    cache = recovery.client.protect(redis_server.client(), target=TARGET, jitter=0)
    other = recovery.client.protect(redis_server.client(), target="redis/other", jitter=0)
    first, seen = cache.client_id(), other.client_id()
    assert recovery.client.start(control_redis.url, wait=20)

    control.redis.publish(
        control.key("notices"), json.dumps({"target": "redis/other", "notice": "renew_pool"})
    )

    until(lambda: other.client_id() != seen)
    assert cache.client_id() == first
    recovery.client.stop()
    cache.close()
    other.close()


def test_garbage_on_the_channels_is_passed_over(
    listening: None,
    control: ControlPlane,
    policy: Policy,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for channel in ("notices", "degraded"):
        for garbage in (b"\xff\xfe", "no json", "[]", "{}", '{"target": 1, "notice": []}'):
            control.redis.publish(control.key(channel), garbage)
    control.redis.hset(control.key("degraded"), "redis/odd", "no json")

    end(control, policy, "1", Result.FAILED)

    knows("long_term_memory", may=False)
    assert any("cannot be read" in record.message for record in caplog.records)


def test_an_acl_user_needs_two_channels_and_two_hashes(
    control: ControlPlane, control_redis: RedisServer, policy: Policy
) -> None:
    rules = (
        "on >secret resetkeys resetchannels ~recovery:notices ~recovery:degraded "
        "&recovery:notices &recovery:degraded +subscribe +hgetall +ping"
    )
    control.redis.execute_command("ACL", "SETUSER", "application", *rules.split())
    recovery.client.stop()

    assert recovery.client.start(
        f"redis://application:secret@127.0.0.1:{control_redis.port}/0", wait=20
    )

    end(control, policy, "1", Result.FAILED)
    knows("long_term_memory", may=False)
    recovery.client.stop()


def test_requires_chooses_at_each_call(
    listening: None, control: ControlPlane, policy: Policy
) -> None:
    @degraded.requires("long_term_memory", otherwise=lambda text: f"plain {text}")
    def search(text: str) -> str:
        """Search."""
        return f"semantic {text}"

    @degraded.requires("long_term_memory", otherwise=lambda text: f"plain {text}")
    async def search_later(text: str) -> str:
        return f"semantic {text}"

    assert (search("x"), asyncio.run(search_later("x"))) == ("semantic x", "semantic x")
    assert search.__doc__ == "Search."

    end(control, policy, "1", Result.FAILED)
    knows("long_term_memory", may=False)

    assert (search("x"), asyncio.run(search_later("x"))) == ("plain x", "plain x")
    with degraded.requires("long_term_memory") as may:
        assert may is False
    with pytest.raises(TypeError, match="otherwise"):
        degraded.requires("long_term_memory")(search)


def test_nothing_is_read_and_nothing_forbidden_where_it_is_switched_off(
    control_redis: RedisServer, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    recovery.client.stop()
    monkeypatch.setenv("RECOVERY_CLIENT", "off")
    client = redis_server.client()

    assert not recovery.client.start(control_redis.url, wait=0.1)
    assert recovery.client.protect(client, target=TARGET) is client

    assert degraded.may_use("long_term_memory")
    assert degraded.age() is None
    assert not recovery.client.report("connection_error", target=TARGET)
    client.close()

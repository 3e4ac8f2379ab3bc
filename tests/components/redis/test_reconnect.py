"""Which connections ``reconnect`` kills, and which it never does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from recovery.components.redis.connection import NAME, hold, keep, release
from recovery.components.redis.evidence import evidence
from recovery.components.redis.probe import probe
from recovery.components.redis.reconnect import Reconnect, is_expendable, reconnect, stale
from recovery.components.redis.target import RedisTarget
from recovery.errors import TargetRefused
from tests.journals import MemoryJournal
from tests.servers import RedisServer, filled
from tests.waiting import until


def entry(number: int, idle: int, flags: str = "N", **said: str) -> dict[str, str]:
    return {"id": str(number), "idle": str(idle), "flags": flags, "sub": "0", "psub": "0", **said}


def test_blocked_subscribed_replicating_and_transacting_clients_are_spared() -> None:
    spared = [
        entry(1, 9999, "b"),
        entry(2, 9999, "S"),
        entry(3, 9999, "P", sub="1"),
        entry(4, 9999, "x", multi="2"),
        entry(5, 9999, "O"),
    ]

    assert not [client for client in spared if is_expendable(client)]


def test_the_standing_connections_of_other_workers_are_spared(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    target = RedisTarget(url=redis_server.url)
    others = [redis_server.client(client_name=NAME) for _ in range(3)]
    ids = {other.client_id() for other in others}
    assert hold(target)
    leaked = filled(redis_server)

    reconnect.remedy(target, Reconnect(idle_at_least=0), MemoryJournal(tmp_path))

    assert {int(one["id"]) for one in others[0].client_list()} >= ids
    for connection in (*others, *leaked):
        connection.close()
    release(target)


def test_on_a_server_with_room_only_long_idle_connections_go() -> None:
    listed = [entry(1, 10), entry(2, 301)]

    doomed = stale(listed, Reconnect(), most=100, own=0)

    assert [client["id"] for client in doomed] == ["2"]


def test_on_a_full_server_the_longest_idle_make_room() -> None:
    listed = [entry(number, idle=number) for number in range(10, 20)]

    doomed = stale(listed, Reconnect(goal_percent=70), most=10, own=0)

    assert [client["id"] for client in doomed] == ["19", "18", "17"]


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.sampled_from(["N", "b", "S", "P"])), max_size=60),
    st.integers(0, 60),
)
def test_our_own_connection_and_spared_ones_never_go(
    clients: list[tuple[int, str]], own: int
) -> None:
    listed = [entry(number, idle, flags) for number, (idle, flags) in enumerate(clients)]

    doomed = stale(listed, Reconnect(), most=10, own=own)

    assert all(int(client["id"]) != own and client["flags"] == "N" for client in doomed)


RIGHTS = (
    "+ping +info +slowlog|len +client|id +client|list +client|kill +client|setname "
    "resetkeys resetchannels"
)
"""What ``docs/runbooks/redis-reconnect.md`` documents as enough."""


def test_the_documented_rights_are_enough_for_probe_and_reconnect(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    documented = Path(__file__).parents[3] / "docs/runbooks/redis-reconnect.md"
    assert RIGHTS in documented.read_text()
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "repair", "on", ">pw", *RIGHTS.split())
        client.execute_command("ACL", "SETUSER", "poor", "on", ">pw", "+ping")
    target = RedisTarget(url=redis_server.url, username="repair", password=SecretStr("pw"))
    poor = RedisTarget(url=redis_server.url, username="poor", password=SecretStr("pw"))
    leaked = redis_server.leak(3)

    reconnect.remedy(target, Reconnect(goal_percent=0.01, idle_at_least=0), MemoryJournal(tmp_path))

    assert probe(target, 1.0).healthy
    assert evidence(target, 1.0)["info"]["server"]
    assert probe(poor, 1.0).failure_type == "auth_failure"
    with pytest.raises(TargetRefused):
        reconnect.remedy(poor, Reconnect(), MemoryJournal(tmp_path))
    release(target)
    for connection in leaked:
        connection.close()


def test_a_connection_that_a_restarted_server_closed_is_opened_again_while_there_is_room(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    target = RedisTarget(url=redis_server.url)
    hold(target)
    redis_server.kill()
    assert not keep(target)
    redis_server.start()

    assert keep(target)

    leaked = filled(redis_server)
    reconnect.remedy(target, Reconnect(idle_at_least=0), MemoryJournal(tmp_path))
    assert probe(target, 1.0).healthy
    release(target)
    for connection in leaked:
        connection.close()


def test_on_a_really_full_server_whoever_works_keeps_the_connection(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    target = RedisTarget(url=redis_server.url)
    hold(target)
    with (
        redis_server.client() as worker,
        redis_server.client() as subscriber,
        redis_server.client() as consumer,
        redis_server.client() as busy,
        ThreadPoolExecutor(1) as pool,
    ):
        worker.config_set("maxclients", 30)
        blocked = pool.submit(consumer.blpop, ["queue"], 30)
        channel = subscriber.pubsub(ignore_subscribe_messages=True)
        channel.subscribe("news")
        channel.get_message(timeout=1)
        transaction = busy.pipeline()
        connection = busy.connection_pool.get_connection()
        connection.send_command("MULTI")
        assert connection.read_response() == "OK"
        leaked = redis_server.leak(40)
        until(lambda: probe(target, 1.0).failure_type == "clients_exhausted")

        reconnect.remedy(target, Reconnect(idle_at_least=0), MemoryJournal(tmp_path))

        assert probe(target, 1.0).healthy
        assert worker.publish("news", "still here") == 1
        message = channel.get_message(timeout=2)
        worker.rpush("queue", "work")
        assert blocked.result(timeout=5) == ("queue", "work")
        connection.send_command("EXEC")
        assert connection.read_response() == []
        assert message is not None
        assert message["data"] == "still here"
        busy.connection_pool.release(connection)
        transaction.close()
        channel.close()
    release(target)
    for leak in leaked:
        leak.close()


def test_a_dry_run_kills_nobody(redis_server: RedisServer, tmp_path: Path) -> None:
    target = RedisTarget(url=redis_server.url)
    leaked = redis_server.leak(5)
    with redis_server.client() as client:
        client.config_set("maxclients", 20)
        until(lambda: len(client.client_list()) >= 6)
        journal = MemoryJournal(tmp_path, dry_run=True)

        reconnect.remedy(target, Reconnect(goal_percent=10, idle_at_least=0), journal)

        assert len(client.client_list()) >= 6
    assert [step.figures["killed"] for step in journal.steps if "killed" in step.figures]
    assert all(
        step.planned for step in journal.steps if step.text.endswith(("killed", "recreated"))
    )
    release(target)
    for leak in leaked:
        leak.close()

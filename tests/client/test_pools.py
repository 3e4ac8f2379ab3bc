"""Renewing pools of redis-py against a real server: what is cut off, and what is not."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio

import recovery.client
from recovery.client.listener import LISTENER
from recovery.client.pools import renewable
from tests.client.conftest import TARGET
from tests.servers import RedisServer
from tests.waiting import until

Tell = Callable[[], None]
POOLS = [redis.ConnectionPool, redis.BlockingConnectionPool]
LOOP_POOLS = [redis.asyncio.ConnectionPool, redis.asyncio.BlockingConnectionPool]


def ids(server: RedisServer) -> set[str]:
    """The server's connections but the asking one."""
    with server.client(client_name="observer") as client:
        return {c["id"] for c in client.client_list() if c["name"] != "observer"}


def is_hooked(pool: Any) -> bool:
    return "release" in vars(pool)


@pytest.mark.parametrize("kind", POOLS)
def test_idle_connections_close_at_once_and_used_ones_when_they_come_back(
    redis_server: RedisServer, kind: type[Any]
) -> None:
    pool = kind.from_url(redis_server.url, decode_responses=True)
    client = redis.Redis(connection_pool=pool)
    renewal = renewable(pool)
    pipe = client.pipeline()
    pipe.watch("key")
    held = ids(redis_server)
    client.ping()
    (idle,) = ids(redis_server) - held

    renewal.renew()

    until(lambda: ids(redis_server) == held, what="the idle one is closed")
    assert idle not in ids(redis_server)
    pipe.multi()
    pipe.set("key", "value")
    assert pipe.execute() == [True]
    until(lambda: not ids(redis_server) & held, what="the used one is closed")
    assert not is_hooked(pool)
    assert client.get("key") == "value"
    client.close()


@pytest.mark.parametrize("kind", POOLS)
def test_a_subscription_and_a_blocking_command_are_left_alone(
    redis_server: RedisServer, kind: type[Any]
) -> None:
    client = redis.Redis(connection_pool=kind.from_url(redis_server.url, decode_responses=True))
    subscription = client.pubsub(ignore_subscribe_messages=True)
    subscription.subscribe("news")
    popped: list[Any] = []
    waiter = threading.Thread(target=lambda: popped.append(client.blpop(["queue"], 20)))
    waiter.start()
    with redis_server.client() as other:
        until(lambda: other.info("clients")["blocked_clients"])
        held = ids(redis_server)

        renewable(client.connection_pool).renew()

        assert held <= ids(redis_server) | {str(other.client_id())}
        other.publish("news", "told")
        other.rpush("queue", "taken")
    waiter.join()
    assert popped == [("queue", "taken")]

    def told() -> Any:
        return subscription.get_message(timeout=0.1)

    assert until(told)["data"] == "told"
    subscription.close()
    until(lambda: not is_hooked(client.connection_pool))
    client.close()


@pytest.mark.parametrize("kind", POOLS)
def test_a_thousand_renewals_under_threads_fail_no_command_and_lose_no_connection(
    redis_server: RedisServer, kind: type[Any]
) -> None:
    pool = kind.from_url(redis_server.url, max_connections=4)
    client = redis.Redis(connection_pool=pool)
    stop, errors, counts = threading.Event(), [], [0] * 4

    def work(number: int) -> None:
        while not stop.is_set():
            try:
                assert client.incr(f"count:{number}") == counts[number] + 1
                counts[number] += 1
            except (redis.RedisError, AssertionError) as error:
                errors.append(repr(error))
                return

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    renewal = renewable(pool)
    for _ in range(1000):
        renewal.renew()
    stop.set()
    for worker in workers:
        worker.join()

    assert not errors
    assert len(ids(redis_server)) <= 4
    held = [pool.get_connection() for _ in range(4)]
    for connection in held:
        pool.release(connection)
    assert not is_hooked(pool)
    client.close()


@pytest.mark.parametrize("kind", LOOP_POOLS)
@pytest.mark.parametrize("inside", [True, False])
def test_an_asyncio_pool_is_renewed_in_its_own_loop(
    listening: None, tell: Tell, redis_server: RedisServer, kind: type[Any], inside: bool
) -> None:
    made = None if inside else protected(kind, redis_server)

    async def live() -> None:
        client = made or protected(kind, redis_server)
        pipe = client.pipeline()
        await pipe.watch("key")
        held = await asyncio.to_thread(ids, redis_server)
        await client.ping()
        before = await asyncio.to_thread(ids, redis_server)
        await asyncio.to_thread(tell)

        def only_the_used_one_is_left() -> bool:
            return ids(redis_server) == held

        def all_are_new() -> bool:
            return not ids(redis_server) & before

        assert len(before) == 2
        await asyncio.to_thread(until, only_the_used_one_is_left)
        pipe.multi()
        pipe.set("key", "value")
        assert await pipe.execute() == [True]
        await asyncio.to_thread(until, all_are_new)
        assert await client.get("key") == b"value"
        assert not is_hooked(client.connection_pool)
        await client.connection_pool.disconnect()

    asyncio.run(live())


def protected(kind: type[Any], server: RedisServer) -> Any:
    client: Any = redis.asyncio.Redis(connection_pool=kind.from_url(server.url))
    return recovery.client.protect(client, target=TARGET, jitter=0)


def test_an_asyncio_client_that_outlives_its_loop_is_renewed_in_the_next_one(
    listening: None, tell: Tell, redis_server: RedisServer
) -> None:
    client = protected(redis.asyncio.ConnectionPool, redis_server)

    async def use() -> int:
        found: int = await client.client_id()
        return found

    async def leave() -> None:
        await use()
        await client.connection_pool.disconnect()

    asyncio.run(leave())
    tell()
    until(lambda: is_hooked(client.connection_pool))

    async def come_back() -> None:
        assert await use() != await use()
        assert not is_hooked(client.connection_pool)
        await client.connection_pool.disconnect()

    asyncio.run(come_back())


def test_a_notice_renews_the_pools_of_its_target_only(
    listening: None, tell: Tell, redis_server: RedisServer
) -> None:
    ours = recovery.client.open_redis(redis_server.url, target=TARGET)
    others = recovery.client.open_redis(redis_server.url, target="redis/other")
    recovery.client.protect(ours, target=TARGET, jitter=0.01)
    first, other = ours.client_id(), others.client_id()

    tell()

    until(lambda: str(first) not in ids(redis_server))
    assert ours.client_id() != first
    assert others.client_id() == other
    ours.close()
    others.close()


def test_clients_of_one_notice_do_not_renew_in_the_same_moment(
    listening: None, tell: Tell, redis_server: RedisServer
) -> None:
    clients = [
        recovery.client.protect(redis_server.client(), target=TARGET, jitter=60) for _ in range(9)
    ]

    tell()

    def planned() -> list[float]:
        return [p.due for p in LISTENER.renewals._all() if p.due is not None]

    until(lambda: len(planned()) > 5)
    assert max(planned()) - min(planned()) > 1
    for client in clients:
        client.close()


def test_a_client_that_its_application_dropped_is_forgotten(
    listening: None, redis_server: RedisServer
) -> None:
    client = recovery.client.open_redis(redis_server.url, target=TARGET)
    pool = weakref.ref(client.connection_pool)
    client.ping()

    del client
    gc.collect()

    assert pool() is None


def test_what_has_no_pool_is_said_so(listening: None) -> None:
    with pytest.raises(TypeError, match="no connection pool"):
        recovery.client.protect(object(), target=TARGET)

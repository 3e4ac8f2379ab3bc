"""redis-py's pools, renewed while others use them: the only place that knows their inside.

An idle connection is closed at once, and opened anew by whoever needs it next. One that is in use
is closed when it comes back: a command in flight, a blocking one, a transaction and a subscription
are never cut off. Nothing is installed in a pool unless connections are awaited there, so a
protected client costs what a bare one costs.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from typing import Any, Protocol

# Pools and connections are typed Any: what is needed of them is not in redis-py's published types.


class Renewable(Protocol):
    """A pool that can be renewed from a thread that does not use it."""

    def renew(self) -> None:
        """Close what is idle now, and what is in use when it comes back."""
        ...

    def forget(self) -> None:
        """Await nothing any more; in a forked child, nothing of the parent's either."""
        ...

    def answers(self) -> bool:
        """Whether the server answers to a connection of its own, made as the pool makes them."""
        ...


def pool_of(client: Any) -> Any:
    """The pool behind a client of redis-py; raises ``TypeError`` where there is none."""
    from redis import ConnectionPool
    from redis.asyncio import ConnectionPool as AsyncConnectionPool

    pool = getattr(client, "connection_pool", client)
    if not isinstance(pool, ConnectionPool | AsyncConnectionPool):
        raise TypeError(
            f"{type(client).__name__} has no connection pool of redis-py; of a cluster, protect "
            "each node's redis_connection"
        )
    return pool


def renewable(pool: Any) -> Renewable:
    from redis import BlockingConnectionPool, ConnectionPool

    if isinstance(pool, BlockingConnectionPool):
        return BlockingThreadedPool(pool)
    return ThreadedPool(pool) if isinstance(pool, ConnectionPool) else LoopPool(pool)


LOOK_SECONDS = 1.0


def _as_a_look(options: dict[str, Any]) -> dict[str, Any]:
    """A pool's options with short patience and without retries."""
    short = {"socket_timeout": LOOK_SECONDS, "socket_connect_timeout": LOOK_SECONDS}
    alone: dict[str, Any] = {"retry": None, "retry_on_timeout": False, "retry_on_error": []}
    return {**options, **short, **alone}


class ThreadedPool:
    """A ``redis.ConnectionPool``."""

    def __init__(self, pool: Any) -> None:
        self._pool = weakref.ref(pool)
        self._awaited: set[Any] = set()
        self._lock = threading.Lock()

    def renew(self) -> None:
        pool = self._pool()
        if pool is not None:
            self._renew(pool)

    def forget(self) -> None:
        self._awaited = set()
        self._lock = threading.Lock()
        pool = self._pool()
        if pool is not None:
            vars(pool).pop("release", None)

    def answers(self) -> bool:
        from redis.exceptions import NoPermissionError, RedisError

        pool = self._pool()
        if pool is None:
            return True
        connection = pool.connection_class(**_as_a_look(pool.connection_kwargs))
        try:
            connection.connect()
            connection.send_command("PING")
            connection.read_response()
        except NoPermissionError:
            return True
        except (RedisError, OSError):
            return False
        finally:
            connection.disconnect()
        return True

    def _renew(self, pool: Any) -> None:
        # Whoever takes or returns a connection holds this lock: each is either idle or in use.
        with pool._lock:  # noqa: SLF001
            self._await(pool, pool._in_use_connections)  # noqa: SLF001
            pool.disconnect(inuse_connections=False)

    def _await(self, pool: Any, in_use: set[Any]) -> None:
        with self._lock:
            self._awaited |= in_use
            if self._awaited:
                vars(pool)["release"] = self._release

    def _release(self, connection: Any) -> None:
        """Stands before the pool's own ``release`` while connections are awaited."""
        pool: Any = self._pool()
        try:
            if connection in self._awaited:
                connection.disconnect()
                self._came_back(pool, connection)
        finally:
            type(pool).release(pool, connection)

    def _came_back(self, pool: Any, connection: Any) -> None:
        with self._lock:
            self._awaited.discard(connection)
            if not self._awaited:
                vars(pool).pop("release", None)


class BlockingThreadedPool(ThreadedPool):
    """A ``redis.BlockingConnectionPool``: its queue holds what is idle, and places for more."""

    def _renew(self, pool: Any) -> None:
        with pool.pool.mutex:
            idle = {connection for connection in pool.pool.queue if connection is not None}
            self._await(pool, set(pool._connections) - idle)  # noqa: SLF001
            for connection in idle:
                connection.disconnect()


class LoopPool:
    """A pool of ``redis.asyncio``, of either kind.

    It may be touched in its event loop alone. Where that one is not known yet, because the client
    was made outside of it, the next connection that comes back tells.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = weakref.ref(pool)
        self._awaited: set[Any] = set()
        self._is_due = False
        self._beginning: asyncio.Task[None] | None = None
        self._loop = _running_loop()
        if self._loop is None:
            vars(pool)["release"] = self._release

    def renew(self) -> None:
        pool = self._pool()
        if pool is None:
            return
        self._is_due = True
        vars(pool)["release"] = self._release
        loop = self._loop
        if loop is None or not loop.is_running():
            return
        try:
            loop.call_soon_threadsafe(self._begin_soon)
        except RuntimeError:
            # It was closed in this moment: the next loop that uses the pool begins.
            self._loop = None

    def forget(self) -> None:
        self._awaited = set()
        self._is_due = False
        self._loop = None
        pool = self._pool()
        if pool is not None:
            vars(pool).pop("release", None)

    def answers(self) -> bool:
        """In an event loop of its own, which ends with the answer."""
        pool = self._pool()
        return True if pool is None else asyncio.run(self._ping(pool))

    async def _ping(self, pool: Any) -> bool:
        from redis.exceptions import NoPermissionError, RedisError

        connection = pool.connection_class(**_as_a_look(pool.connection_kwargs))
        try:
            async with asyncio.timeout(2 * LOOK_SECONDS):
                await connection.connect()
                await connection.send_command("PING")
                await connection.read_response()
        except NoPermissionError:
            return True
        except (RedisError, OSError):
            return False
        finally:
            await connection.disconnect(nowait=True)
        return True

    def _begin_soon(self) -> None:
        self._beginning = asyncio.get_running_loop().create_task(self._begin())

    async def _begin(self) -> None:
        """Never gives way to another task: each connection is either idle or in use."""
        pool = self._pool()
        if pool is None or not self._is_due:
            return
        self._is_due = False
        self._awaited |= set(pool._in_use_connections)  # noqa: SLF001
        self._settle(pool)
        for connection in tuple(pool._available_connections):  # noqa: SLF001
            await connection.disconnect(nowait=True)

    async def _release(self, connection: Any) -> None:
        pool: Any = self._pool()
        try:
            self._loop = asyncio.get_running_loop()
            await self._begin()
            if connection in self._awaited:
                self._awaited.discard(connection)
                await connection.disconnect(nowait=True)
            self._settle(pool)
        finally:
            await type(pool).release(pool, connection)

    def _settle(self, pool: Any) -> None:
        if self._awaited or self._is_due:
            vars(pool)["release"] = self._release
        else:
            vars(pool).pop("release", None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None

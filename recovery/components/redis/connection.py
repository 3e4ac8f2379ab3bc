"""Connections to a target: a fresh one that sees what clients see, and a standing one for repair.

Redis keeps no place for an administrator: once ``maxclients`` is reached nobody gets in, who wants
to make room least of all. So each process that repairs holds one connection a target from the
moment at which it first could, and makes room through that.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import redis
from redis import exceptions

from recovery.components.redis.target import RedisTarget
from recovery.credentials import reveal
from recovery.errors import RemedyError, TargetRefused, TargetUnreachable

T = TypeVar("T")

# Clients are typed Any where they are used: redis-py types one answer as sync or async.

NAME = "recovery-admin"
"""CLIENT SETNAME of our standing connections, so that people and remedies recognise them."""

_REFUSED = (
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.NoPermissionError,
)
_ENTRY_PAUSE = 0.01


def open_client(
    target: RedisTarget,
    timeout: float,
    *,
    name: str | None = None,
    as_text: bool = True,
    connections: int = 1,
) -> redis.Redis:
    """A client that never retries by itself. ``timeout`` in seconds.

    Raises ``TargetRefused`` where the password cannot be read.
    """
    options: dict[str, Any] = {}
    if target.tls_ca_file and target.url.startswith("rediss://"):
        options["ssl_ca_certs"] = target.tls_ca_file
    return redis.Redis.from_url(
        target.url,
        username=target.username,
        password=reveal(target.password, target.password_file),
        client_name=name,
        decode_responses=as_text,
        socket_connect_timeout=min(target.connect_timeout, timeout),
        socket_timeout=timeout,
        single_connection_client=False,
        max_connections=connections,
        retry=None,
        retry_on_timeout=False,
        **options,
    )


@contextmanager
def fresh(target: RedisTarget, timeout: float) -> Iterator[Any]:
    """A new connection, as a client's next one would be; closed at the end."""
    client = open_client(target, timeout)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def bytewise(target: RedisTarget, timeout: float) -> Iterator[Any]:
    """A client for keys and values, which need not be text: two connections, one to WATCH on."""
    client = open_client(target, timeout, as_text=False, connections=2)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def named_errors(target: RedisTarget) -> Iterator[None]:
    """Redis's errors as ours. The text never holds credentials: the URL has none."""
    try:
        yield
    except _REFUSED as error:
        raise TargetRefused(f"{target.url} refuses us: {error}") from error
    except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
        raise TargetUnreachable(f"{target.url} does not answer: {error}") from error
    except exceptions.ResponseError as error:
        raise RemedyError(f"{target.url}: {error}") from error


class _Standing:
    """The standing connections of this process, opened anew after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._clients: dict[str, redis.Redis] = {}

    def get(self, target: RedisTarget, timeout: float) -> redis.Redis:
        with self._lock:
            if self._pid != os.getpid():
                self._pid, self._clients = os.getpid(), {}
            client = self._clients.get(target.url)
            if client is None:
                # Two, so that looking after the connection never keeps a remedy from one.
                client = open_client(target, timeout, name=NAME, connections=2)
                self._clients[target.url] = client
            return client

    def drop(self, target: RedisTarget) -> None:
        with self._lock:
            client = self._clients.pop(target.url, None)
        if client is not None:
            client.close()


_standing = _Standing()


def hold(target: RedisTarget, timeout: float = 1.0) -> bool:
    """Open the standing connection if it is not; False where the target lets nobody in now."""
    try:
        _standing.get(target, timeout).ping()
    except (exceptions.RedisError, TargetRefused):
        _standing.drop(target)
        return False
    return True


def keep(target: RedisTarget, timeout: float = 1.0) -> bool:
    """Open the standing connection anew where the server has closed it, as one that was restarted
    did; False where the target lets nobody in now. Harmless while a remedy works on it."""
    try:
        pool = _standing.get(target, timeout).connection_pool
        # Whoever takes a connection from the pool gets one that the server has not closed.
        pool.release(pool.get_connection())
    except (exceptions.RedisError, TargetRefused):
        return False
    return True


def release(target: RedisTarget) -> None:
    """Close the standing connection; the next use opens a new one."""
    _standing.drop(target)


def enter(target: RedisTarget, remaining: Callable[[], float]) -> Any:
    """A connection that works, by the standing one or by waiting at the door.

    On a full server a place is free for an instant whenever a client leaves, so the door is tried
    until half of the remaining time is over. Raises ``TargetRefused`` and ``TargetUnreachable``.
    """
    patience = time.monotonic() + remaining() / 2
    while True:
        client = _standing.get(target, min(remaining(), 2.0))
        try:
            with named_errors(target):
                client.ping()
        except TargetUnreachable as error:
            _standing.drop(target)
            if not is_full(error) or time.monotonic() > patience:
                raise
            time.sleep(_ENTRY_PAUSE)
        except RemedyError:
            _standing.drop(target)
            raise
        else:
            return client


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that ``maxclients`` is reached."""
    while error is not None:
        if "max number of clients reached" in str(error):
            return True
        error = error.__cause__
    return False

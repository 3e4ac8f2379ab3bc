"""httpx, bounded: a client a process, and no answer that takes longer than it may, drop by drop.

A timeout of httpx's holds for one read. Whoever sends a byte a second is never too late for it; so
the network beneath it asks before each read how much time is left. The only place that knows the
inside of httpx's transport.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import httpcore
import httpx

from recovery.reaching import Bounded

SLICE_SECONDS = 0.5
"""How often a silent connection is thought about."""

LIMITS = httpx.Limits(
    max_connections=None,
    max_keepalive_connections=100,
    # Servers close what is idle for five seconds; a request must not meet that moment.
    keepalive_expiry=3.0,
)
_WRITE_BYTES = 64 * 1024


class Watch:
    """Over a request: when it must be over, and ``is_lost``, who is asked when it is silent."""

    def __init__(self, ends: float, *, after: float, is_lost: Callable[[], bool] | None) -> None:
        self.ends = ends
        self.is_lost = is_lost
        self._look_at = time.monotonic() + after

    def seconds(self) -> float:
        """For the next read; raises ``httpcore.ReadTimeout`` where the time is over."""
        now = time.monotonic()
        left = self.ends - now
        if left <= 0:
            raise httpcore.ReadTimeout("the time is over")
        if self.is_lost is None:
            return left
        return min(left, max(self._look_at - now, SLICE_SECONDS))

    def think(self) -> None:
        """After a silence; raises ``httpcore.ReadTimeout`` where nothing is to be hoped for."""
        if self.is_lost is None or time.monotonic() < self._look_at:
            return
        if self.is_lost():
            raise httpcore.ReadTimeout("nobody is there")


_WATCH: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)


class _Stream(httpcore.NetworkStream):
    """A connection of which each read and write is watched."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        watch = _WATCH.get()
        if watch is None:
            return self._inner.read(max_bytes, timeout)
        while True:
            left = watch.seconds()
            try:
                return self._inner.read(max_bytes, left)
            except httpcore.ReadTimeout:
                watch.think()

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        watch = _WATCH.get()
        if watch is None:
            self._inner.write(buffer, timeout)
            return
        for start in range(0, len(buffer), _WRITE_BYTES):
            left = watch.ends - time.monotonic()
            if left <= 0:
                raise httpcore.WriteTimeout("the time is over")
            self._inner.write(buffer[start : start + _WRITE_BYTES], left)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Network(httpcore.NetworkBackend):
    def __init__(self, inner: httpcore.NetworkBackend) -> None:
        self._inner = inner

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.connect_tcp(host, port, timeout, local_address, socket_options))

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


def trusting(ssl_context: ssl.SSLContext | None) -> ssl.SSLContext | bool:
    return True if ssl_context is None else ssl_context


class Wire:
    """The synchronous client of this process. Threads share it; a forked child makes its own."""

    def __init__(self, ssl_context: ssl.SSLContext | None = None) -> None:
        self._ssl_context = ssl_context
        self._clients: dict[int, httpx.Client] = {}

    @property
    def client(self) -> httpx.Client:
        pid = os.getpid()
        found = self._clients.get(pid)
        if found is None:
            made = _watching(httpx.Client(verify=trusting(self._ssl_context), limits=LIMITS))
            # Two threads may come first: one client is kept, and a parent's is forgotten unclosed,
            # since its connections are the parent's.
            found = self._clients.setdefault(pid, made)
        return found

    def close(self) -> None:
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()


def _watching(client: httpx.Client) -> httpx.Client:
    """Put the watched network beneath the client's transports, those of a proxy included."""
    transports: list[Any] = [client._transport, *client._mounts.values()]  # noqa: SLF001
    for transport in transports:
        if transport is not None:
            pool = transport._pool  # noqa: SLF001
            pool._network_backend = _Network(Bounded(pool._network_backend))  # noqa: SLF001
    return client


def timeouts(connect: float, left: float) -> dict[str, dict[str, float]]:
    """As httpx wants them, for one request."""
    left = max(left, 0.001)
    return {"timeout": {"connect": min(connect, left), "read": left, "write": left, "pool": left}}

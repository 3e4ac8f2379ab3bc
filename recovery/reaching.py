"""Httpcore's TCP connections with an end: for the resolver, too, and all addresses of a name."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import httpcore

from recovery.resolving import addresses


class Bounded(httpcore.NetworkBackend):
    """Around httpcore's own network, whose time begins anew with each address of a name."""

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
        ends = None if timeout is None else time.monotonic() + timeout
        error: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in _found(host, timeout):
            left = None if ends is None else ends - time.monotonic()
            if left is not None and left <= 0:
                raise httpcore.ConnectTimeout("the time is over") from error
            try:
                return self._inner.connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failed:
                error = failed
        raise error

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


def bound(client: Any) -> None:
    """Have all connections of an ``httpx.Client`` end in time; its proxies are not looked at."""
    pool = client._transport._pool  # noqa: SLF001
    pool._network_backend = Bounded(pool._network_backend)  # noqa: SLF001


def _found(host: str, timeout: float | None) -> list[str]:
    try:
        return addresses(host, timeout)
    except TimeoutError as late:
        raise httpcore.ConnectTimeout(str(late)) from late
    except OSError as unknown:
        raise httpcore.ConnectError(str(unknown)) from unknown

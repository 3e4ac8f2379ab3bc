"""The end of one request's time, whatever the other side does: its connections are shut.

A timeout of a client's holds for one read, so a server that sends a byte now and then is never
late. It knows of sockets, and of httpcore's trace, which tells of new ones; not of HTTP.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any


class Cutoff:
    """The end of one request's time. ``opened``: what the conversation ever connected."""

    def __init__(self, opened: list[socket.socket]) -> None:
        self.is_over = False
        self._is_left = False
        self._lock = threading.Lock()
        self._open = opened

    def see(self, event: str, info: Mapping[str, Any]) -> None:
        """Httpcore's trace: a new connection's stream is what its steps return."""
        stream = info.get("return_value")
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")) and stream is not None:
            self._remember(stream.get_extra_info("socket"))

    def shut(self) -> None:
        with self._lock:
            if self._is_left:
                return
            self.is_over = True
            for one in self._open:
                _shut(one)

    def leave(self) -> None:
        """The request is over: a timer that is late must not meet the next one's connection."""
        with self._lock:
            self._is_left = True

    def _remember(self, opened: socket.socket | None) -> None:
        if opened is None:
            return
        with self._lock:
            self._open.append(opened)
            if self.is_over:
                _shut(opened)


@contextmanager
def shut_after(seconds: float, opened: list[socket.socket]) -> Iterator[Cutoff]:
    cut = Cutoff(opened)
    timer = threading.Timer(seconds, cut.shut)
    timer.daemon = True
    timer.start()
    try:
        yield cut
    finally:
        timer.cancel()
        cut.leave()


def _shut(opened: socket.socket) -> None:
    with suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)

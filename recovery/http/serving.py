"""Runs the server until it is told to stop.

A connection that says nothing, or that takes nothing of what it is sent, is cut off: it may cost no
more than its socket.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from recovery.errors import SetupError
from recovery.http.app import build
from recovery.http.board import Board
from recovery.http.stream import Watch

if TYPE_CHECKING:
    from recovery.http.context import Context

HEADER_SECONDS = 10
"""How long a connection may take to say what it wants, each time that it wants something."""

STALLED_SECONDS = 20
"""How long a client may leave what it was sent untaken."""

SEND_BUFFER_BYTES = 128 * 1024
GRACE_SECONDS = 5
IDLE_SECONDS = 15

log = structlog.get_logger()


class PatientForAWhile(H11Protocol):
    """uvicorn's own protocol, with an end to waiting in both directions."""

    _unheard: asyncio.TimerHandle | None = None
    _untaken: asyncio.TimerHandle | None = None
    _last: object = None
    """The request after which another one is awaited."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._listen()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._unheard, self._untaken):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._untaken = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._untaken is not None:
            self._untaken.cancel()

    def data_received(self, data: bytes) -> None:
        """What follows an answer is the beginning of another request: it has an end, too."""
        before: Any = self.cycle
        super().data_received(data)
        is_begun = before is not None and before.response_complete and self.cycle is before
        if is_begun and self._last is not before:
            self._listen()

    def _listen(self) -> None:
        if self._unheard is not None:
            self._unheard.cancel()
        self._last = self.cycle
        self._unheard = self.loop.call_later(HEADER_SECONDS, self._cut_off_unheard)

    def _cut_off_unheard(self) -> None:
        if self.cycle is self._last:
            self.transport.abort()


class Server(uvicorn.Server):
    """Ends its event streams itself, which would otherwise be waited for."""

    def __init__(self, config: uvicorn.Config, watch: Watch) -> None:
        super().__init__(config)
        self.watch = watch

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self.watch.close()
        await super().shutdown(sockets)


def serve(context: Context) -> None:
    """Until SIGTERM or SIGINT; raises ``SetupError`` where the address cannot be had."""
    settings = context.settings
    # Called once all is closed, since uvicorn raises the signal that ended it again.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    with listening(settings.host, settings.port) as listener:
        log.info("serving", url=settings.url)
        if settings.made_token is not None:
            log.info("a token was made for this machine", file=str(settings.made_token))
        server(context).run(sockets=[listener])


def server(context: Context) -> Server:
    """Ready to run on a socket."""
    proxies = context.settings.trusted_proxies
    watch = Watch(context, Board(context))
    return Server(
        uvicorn.Config(
            build(context, watch),
            http=PatientForAWhile,
            ws="none",
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(proxies),
            forwarded_allow_ips=list(proxies),
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        ),
        watch,
    )


def listening(host: str, port: int) -> socket.socket:
    """The socket; raises ``SetupError``."""
    address = host.strip("[]")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # Named, because asyncio switches Nagle's algorithm off only where it reads TCP here; else each
    # answer in two writes waits 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        listener.bind((address, port))
    except OSError as error:
        listener.close()
        raise SetupError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener

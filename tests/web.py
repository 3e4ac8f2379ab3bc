"""Real HTTP servers for tests, each in a thread: they answer, misbehave, die and come back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from tests.servers import free_port
from tests.waiting import until


class WebServer:
    """One application on a port of 127.0.0.1. ``tls``: certificate and key as PEM files."""

    def __init__(self, app: Starlette, *, tls: tuple[Path, Path] | None = None) -> None:
        self.app = app
        self.tls = tls
        self.port = free_port()
        self._transports: dict[tuple[str, int], asyncio.Transport] = {}
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def url(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        return self._server is not None and self._server.started

    def start(self) -> None:
        assert self._thread is None, "it runs already"
        options: dict[str, Any] = {}
        if self.tls:
            options = {"ssl_certfile": str(self.tls[0]), "ssl_keyfile": str(self.tls[1])}
        config = uvicorn.Config(
            self.app,
            host="127.0.0.1",
            port=self.port,
            log_config=None,
            lifespan="off",
            ws="none",
            http=self._protocol(),
            timeout_graceful_shutdown=1,
            **options,
        )
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._serve, args=(self._server,), daemon=True)
        self._thread.start()
        until(lambda: self.is_running, what=f"{self.url} listens")

    def kill(self) -> None:
        """As SIGKILL does: every connection is reset, and nobody listens any more."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = self._server.force_exit = True
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._reset_all)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._server = self._thread = None

    def transport_of(self, request: Request) -> asyncio.Transport:
        """The connection itself, for what HTTP does not allow."""
        assert request.client is not None
        return self._transports[request.client.host, request.client.port]

    def _serve(self, server: uvicorn.Server) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            await server.serve()

        asyncio.run(serve())

    def _reset_all(self) -> None:
        for transport in list(self._transports.values()):
            transport.abort()

    def _protocol(self) -> type[H11Protocol]:
        transports = self._transports

        class Remembering(H11Protocol):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                super().connection_made(transport)
                self.peer = transport.get_extra_info("peername")
                transports[self.peer] = transport

            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                transports.pop(self.peer, None)

        return Remembering


async def given_up(request: Request) -> None:
    """Until whoever asked goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Raw(Response):
    """What the connection itself is made to do, behind the back of HTTP."""

    def __init__(self, act: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._act = act

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._act()
        # What uvicorn then wants to say goes to a connection that is gone.
        await super().__call__(scope, receive, send)


def dropped(transport: asyncio.Transport) -> Raw:
    """The connection is reset instead of an answer."""

    async def act() -> None:
        transport.abort()

    return Raw(act)


def dripping(transport: asyncio.Transport, *, body: bool = False, pause: float = 0.05) -> Raw:
    """An answer that comes a byte at a time and never ends: each read succeeds in time."""

    async def act() -> None:
        transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        transport.write(b"Content-Length: 100000\r\n\r\n{" if body else b"X-Slow: ")
        while not transport.is_closing():
            transport.write(b" " if body else b"a")
            await asyncio.sleep(pause)

    return Raw(act)


def cut(transport: asyncio.Transport, text: bytes) -> Raw:
    """An answer that announces more than it sends, and then the connection ends."""

    async def act() -> None:
        transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        transport.write(b"Content-Length: 100000\r\n\r\n" + text)
        await asyncio.sleep(0.01)
        transport.close()

    return Raw(act)

"""What every request passes before a route sees it: name, pace, token, size; and headers on the way
back. A route that is new is closed to whoever has no token, until it is named here.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers

from recovery.http.access import Caller, Door, TooManyGuesses
from recovery.http.answers import refuse
from recovery.http.pace import Pace

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from recovery.http.settings import Settings

BODY_SECONDS = 10.0
"""How long a client may take to send a body."""

BURST_SECONDS = 4
SAFE_METHODS = frozenset({"GET", "HEAD"})

FOR_EVERYBODY = frozenset({"/healthz", "/readyz", "/login", "/logout"})
STATIC = "/static/"
"""Need no token to read. ``/login`` is also written to: by whoever brings one."""

CONTENT_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    b"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-security-policy", CONTENT_POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)

log = structlog.get_logger()


@dataclass(slots=True)
class _Request:
    """One request on its way, and what it was answered."""

    scope: Scope
    headers: Headers = field(init=False)
    status: int = 0

    def __post_init__(self) -> None:
        self.headers = Headers(scope=self.scope)

    @property
    def client(self) -> str:
        address = self.scope.get("client")
        return str(address[0]) if address else ""

    @property
    def path(self) -> str:
        return str(self.scope["path"])

    @property
    def is_safe(self) -> bool:
        return self.scope["method"] in SAFE_METHODS

    @property
    def wants_page(self) -> bool:
        return self.is_safe and "text/html" in self.headers.get("accept", "")


class Gate:
    """Wraps the application; what it lets through knows its ``Caller``."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._settings = settings
        self.door = Door(settings)
        rate = settings.requests_per_second
        self._pace = Pace(rate, max(rate * BURST_SECONDS, 1))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        request = _Request(scope)
        await self._admit(request, receive, _with_headers(request, send))
        _log(request)

    async def _admit(self, request: _Request, receive: Receive, send: Send) -> None:
        if not self._is_named_rightly(request):
            text = "this server is not called so; see http.public_url and http.allowed_hosts"
            await refuse(send, 421, text, code="wrong_host")
            return
        if (wait := self._pace.take(request.client)) > 0:
            await _slow_down(send, wait, "too many requests")
            return
        caller = self.door.recognise(
            request.client, request.headers.get("authorization"), request.headers.get("cookie")
        )
        if isinstance(caller, TooManyGuesses):
            await _slow_down(send, caller.retry_after, "too many wrong tokens")
            return
        if not await self._may(request, caller, send):
            return
        request.scope.setdefault("state", {})["caller"] = caller
        request.scope["state"]["door"] = self.door
        if request.is_safe:
            await self.app(request.scope, receive, send)
        else:
            await self._with_body(request, receive, send)

    def _is_named_rightly(self, request: _Request) -> bool:
        allowed = self._settings.hosts
        return allowed is None or _host_name(request.headers.get("host", "")) in allowed

    async def _may(self, request: _Request, caller: Caller, send: Send) -> bool:
        """Whether it goes on; else it has been answered."""
        is_public = request.path in FOR_EVERYBODY or request.path.startswith(STATIC)
        if not request.is_safe and (caller.by_cookie or is_public) and not _is_own(request):
            await refuse(send, 403, "sent by a page of another site", code="cross_site")
            return False
        allowed = is_public or (caller.may_read if request.is_safe else caller.may_write)
        if allowed:
            return True
        if request.wants_page:
            await send(
                {
                    "type": "http.response.start",
                    "status": 303,
                    "headers": [(b"location", b"/login")],
                }
            )
            await send({"type": "http.response.body", "body": b""})
        elif caller.may_read and (caller.by_cookie or "authorization" in request.headers):
            await refuse(send, 403, "this token is for reading alone", code="read_only")
        else:
            text = "a token is needed: Authorization: Bearer …"
            await refuse(send, 401, text, www_authenticate="Bearer")
        return False

    async def _with_body(self, request: _Request, receive: Receive, send: Send) -> None:
        """Hand over the whole body, or none of a request that is too large or too slow."""
        limit = self._settings.max_body_bytes
        said = request.headers.get("content-length", "0")
        body: bytes | None = None
        if said.isdigit() and int(said) <= limit:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    body = await _whole(receive, limit)
            except TimeoutError:
                await refuse(send, 408, "the body did not come in time", connection="close")
                return
        if body is None:
            text = f"at most {limit} bytes are accepted"
            await refuse(send, 413, text, connection="close")
            return
        await self.app(request.scope, _replaying(body, receive), send)


async def _whole(receive: Receive, limit: int) -> bytes | None:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > limit:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _replaying(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _with_headers(request: _Request, send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            request.status = message["status"]
            headers = [*message.get("headers", []), *HEADERS]
            if not any(name == b"cache-control" for name, _ in headers):
                headers.append((b"cache-control", b"no-store"))
            message = {**message, "headers": headers}
        await send(message)

    return wrapped


def _is_own(request: _Request) -> bool:
    """Whether a browser sent this from our own page; one that says neither is not believed."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    try:
        netloc = urlsplit(request.headers.get("origin", "")).netloc
    except ValueError:
        return False
    return netloc != "" and netloc.lower() == request.headers.get("host", "").lower()


def _host_name(host: str) -> str:
    """Without the port; ``[::1]`` keeps its brackets."""
    name = host.strip().lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0]


async def _slow_down(send: Send, seconds: float, text: str) -> None:
    await refuse(send, 429, text, retry_after=str(math.ceil(seconds)))


def _log(request: _Request) -> None:
    """The path alone: a query or a header may hold what nobody else should read."""
    caller = request.scope.get("state", {}).get("caller")
    facts = {
        "method": request.scope["method"],
        "path": request.path[:200],
        "status": request.status,
        "client": request.client,
        "by": caller.name if isinstance(caller, Caller) else None,
    }
    if request.is_safe and request.status < HTTPStatus.BAD_REQUEST:
        log.debug("http", **facts)
    else:
        log.info("http", **facts)

"""A server that behaves as a real Open WebUI was seen to behave, its traps included.

It stands in front of an OpenAI-compatible upstream. What ``test_contract`` of the component says of
it is asked of a real one too.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from tests.upstreams import OpenAiUpstream
from tests.web import WebServer, cut, dripping, dropped, given_up

EMAIL = "recovery@example.com"
PASSWORD = "pass-word-in-clear"
VERSION = "0.12.4"
SIGN_INS, WINDOW_SECONDS = 15, 180
PAGE = "<!doctype html><html><head><title>Open WebUI</title></head><body></body></html>"


@dataclass
class OpenWebui:
    """Its state may be changed while it runs.

    ``expires_in``: seconds that a token lives; None for ever. ``mode``: what every request meets:
    ``answer``, ``hang``, ``drop``, ``drip``, ``drip_body``, ``malformed``, ``html``, ``cut``,
    ``login`` (a redirect to a login page, as a proxy in front does it), ``maintenance`` (a proxy's
    503 page with Retry-After) or a status. ``modes`` holds for one path each,
    with or without a query.
    """

    upstream: OpenAiUpstream
    tls: tuple[Path, Path] | None = None
    expires_in: float | None = 4 * 7 * 86_400
    mode: str = "answer"
    modes: dict[str, str] = field(default_factory=dict)
    ready: bool = True
    password_sign_in: bool = True
    api_keys_enabled: bool = True
    passwords: dict[str, str] = field(default_factory=lambda: {EMAIL: PASSWORD})
    secret: bytes = b"first"
    sign_in_delay: float = 0.0
    retry_after: str | None = None
    odd_sign_in: Any = None
    """What a sign-in answers instead, where it is not None."""
    extra_models: list[Any] = field(default_factory=list)
    """Entries of the model list that no upstream has."""
    sign_ins: list[tuple[float, str, int]] = field(default_factory=list)
    """Time, e-mail and status of each."""
    requests: list[str] = field(default_factory=list)
    """Method and path of each."""

    def __post_init__(self) -> None:
        self.api_keys: dict[str, str] = {}
        self.known: list[dict[str, Any]] = []
        self._limiter: list[tuple[float, str]] = []
        routes = [
            Route("/health", self.status),
            Route("/health/db", self.status),
            Route("/ready", self.readiness),
            Route("/api/version", self.version),
            Route("/api/v1/auths/signin", self.sign_in, methods=["POST"]),
            Route("/api/v1/auths/api_key", self.make_api_key, methods=["POST"]),
            Route("/api/v1/auths/", self.session),
            Route("/api/models", self.list_models),
            Route("/api/v1/models", self.list_models),
            Route("/api/chat/completions", self.complete, methods=["POST"]),
            Route("/{anything:path}", self.page),
        ]
        app = Starlette(
            routes=[self._odd(route) for route in routes],
            exception_handlers={HTTPException: _as_fastapi_does},
        )
        self.server = WebServer(app, tls=self.tls)

    @property
    def url(self) -> str:
        return self.server.url

    def start(self) -> None:
        self.server.start()

    def kill(self) -> None:
        self.server.kill()

    @property
    def signed_in(self) -> list[int]:
        """The status of each sign-in."""
        return [status for _, _, status in self.sign_ins]

    def token(self, expires_in: float | None = None, made_ago: float = 0.0) -> str:
        """A token as a sign-in makes them, or made one ``made_ago`` seconds ago."""
        lives = self.expires_in if expires_in is None else expires_in
        claims: dict[str, Any] = {
            "id": "user-1",
            "jti": str(time.time_ns()),
            "iat": int(time.time() - made_ago),
        }
        if lives is not None:
            claims["exp"] = int(time.time() + lives)
        signed = f"{_b64({'alg': 'HS256', 'typ': 'JWT'})}.{_b64(claims)}"
        return f"{signed}.{self._signature(signed)}"

    @staticmethod
    def ends(expires_in: float) -> float:
        return float(int(time.time() + expires_in))

    def api_key(self) -> str:
        key = f"sk-{hashlib.sha256(str(time.time_ns()).encode()).hexdigest()[:32]}"
        self.api_keys[key] = EMAIL
        return key

    def fill_limiter(self, email: str) -> None:
        """Somebody else has signed in too often."""
        self._limiter = [(time.monotonic(), email)] * SIGN_INS

    def forget_sign_ins(self) -> None:
        """The limiter's window has passed."""
        self._limiter.clear()

    # What each path answers.

    async def status(self, request: Request) -> Response:
        return JSONResponse({"status": True})

    async def readiness(self, request: Request) -> Response:
        if not self.ready:
            return JSONResponse({"detail": "Startup not complete"}, 503)
        return JSONResponse({"status": True})

    async def version(self, request: Request) -> Response:
        return JSONResponse({"version": VERSION, "deployment_id": ""})

    async def page(self, request: Request) -> Response:
        return HTMLResponse(PAGE)

    async def sign_in(self, request: Request) -> Response:
        asked = await request.json()
        email = str(asked.get("email")).lower()
        await asyncio.sleep(self.sign_in_delay)
        answer = self._sign_in(email, str(asked.get("password")))
        self.sign_ins.append((time.monotonic(), email, answer.status_code))
        return answer

    def _sign_in(self, email: str, password: str) -> Response:
        if not self.password_sign_in:
            return _detail(403, "The requested action has been restricted as a security measure.")
        if self._is_limited(email):
            return _detail(429, "API rate limit exceeded")
        if self.passwords.get(email) != password:
            return _detail(
                400,
                "The email or password provided is incorrect. Please check for typos and try"
                " logging in again.",
            )
        if self.odd_sign_in is not None:
            return Response(json.dumps(self.odd_sign_in), media_type="application/json")
        token = self.token()
        user = {"id": "user-1", "email": email, "name": "Recovery", "role": "admin"}
        expires = _claims(token).get("exp")
        return JSONResponse({**user, "token": token, "token_type": "Bearer", "expires_at": expires})

    def _is_limited(self, email: str) -> bool:
        """Also the right password is refused, and what is refused does not count."""
        now = time.monotonic()
        self._limiter = [(at, who) for at, who in self._limiter if now - at < WINDOW_SECONDS]
        if sum(who == email for _, who in self._limiter) >= SIGN_INS:
            return True
        self._limiter.append((now, email))
        return False

    async def make_api_key(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        return JSONResponse({"api_key": self.api_key()})

    async def session(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        token = _bearer(request) or ""
        if token.startswith("sk-"):
            return _detail(403, "Use of API key is not allowed for this endpoint.")
        return JSONResponse(
            {
                "token": token,
                "token_type": "Bearer",
                "expires_at": _claims(token).get("exp"),
                "id": "user-1",
                "email": EMAIL,
                "role": "admin",
            }
        )

    async def list_models(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        if not self.known or request.query_params.get("refresh") == "true":
            self.known = await self._ask_upstream_for_models()
        return JSONResponse({"data": [*self.known, *self.extra_models]})

    async def _ask_upstream_for_models(self) -> list[dict[str, Any]]:
        try:
            async with self._client(timeout=2.0) as client:
                answer = await client.get("/v1/models")
                return [
                    {**model, "name": model["id"], "connection_type": "external"}
                    for model in answer.json()["data"]
                ]
        except (httpx.HTTPError, ValueError, KeyError):
            return []

    async def complete(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        asked = await request.json()
        if not self.known:
            self.known = await self._ask_upstream_for_models()
        model = str(asked.get("model", ""))
        if not self.known:
            return _detail(404, "Model '' was not found")
        if model not in {one["id"] for one in self.known}:
            return _detail(400, "Model not found")
        try:
            return await self._forward(asked)
        except (httpx.HTTPError, ValueError):
            return _detail(500, "Open WebUI: Server Connection Error")

    async def _forward(self, asked: dict[str, Any]) -> Response:
        client = self._client(timeout=300.0)
        sent = client.build_request("POST", "/v1/chat/completions", json=asked)
        try:
            answer = await client.send(sent, stream=True)
            is_stream = answer.headers.get("content-type", "").startswith("text/event-stream")
            if is_stream and answer.status_code == 200:
                return StreamingResponse(
                    self._relay(client, answer), media_type="text/event-stream"
                )
            await answer.aread()
        except BaseException:
            await client.aclose()
            raise
        await client.aclose()
        if answer.status_code >= 400 and "retry-after" in answer.headers:
            kept = {"Retry-After": answer.headers["retry-after"]}
            return JSONResponse(answer.json(), answer.status_code, headers=kept)
        if "json" in answer.headers.get("content-type", ""):
            return JSONResponse(answer.json(), answer.status_code)
        return Response(answer.content, answer.status_code, media_type="text/plain")

    async def _relay(
        self, client: httpx.AsyncClient, answer: httpx.Response
    ) -> AsyncIterator[bytes]:
        try:
            async for chunk in answer.aiter_raw():
                yield chunk
        finally:
            await answer.aclose()
            await client.aclose()

    def _client(self, timeout: float) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.upstream.key}"}
        return httpx.AsyncClient(base_url=self.upstream.url, headers=headers, timeout=timeout)

    # Who may, and what goes wrong before anybody asks.

    def _refused(self, request: Request) -> Response | None:
        token = _bearer(request)
        if token is None:
            return _detail(401, "Not authenticated")
        if token.startswith("sk-"):
            if token not in self.api_keys:
                return _detail(401, "Your session has expired or the token is invalid.")
            if not self.api_keys_enabled:
                return _detail(403, "Use of API key is not enabled in the environment.")
            return None
        return None if self._is_valid(token) else _detail(401, "401 Unauthorized")

    def _is_valid(self, token: str) -> bool:
        signed, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(signed).encode()):
            return False
        expires = _claims(token).get("exp")
        return expires is None or time.time() < expires

    def _signature(self, signed: str) -> str:
        return _unpadded(hmac.digest(self.secret, signed.encode(), "sha256"))

    def _odd(self, route: Route) -> Route:
        answer_well = route.endpoint

        async def answer(request: Request) -> Response:
            self.requests.append(f"{request.method} {request.url.path}")
            path, query = request.url.path, request.url.query
            mode = self.modes.get(f"{path}?{query}", self.modes.get(path, self.mode))
            odd = await self._misbehave(request, mode)
            if odd is not None:
                return odd
            answered: Response = await answer_well(request)
            return answered

        return Route(route.path, answer, methods=list(route.methods or ()))

    async def _misbehave(self, request: Request, mode: str) -> Response | None:
        transport = self.server.transport_of(request)
        wait = {"Retry-After": self.retry_after} if self.retry_after is not None else {}
        if mode == "hang":
            await given_up(request)
        if mode.isdigit():
            return HTMLResponse(f"<h1>{mode}</h1>", int(mode), headers=wait)
        odd: dict[str, Response] = {
            "hang": dropped(transport),
            "drop": dropped(transport),
            "drip": dripping(transport),
            "drip_body": dripping(transport, body=True),
            "malformed": Response('{"data": [{"id"', media_type="application/json"),
            "html": HTMLResponse(PAGE),
            "cut": cut(transport, b'{"data": ['),
            "login": RedirectResponse("https://login.example.com/?next=%2F", 302),
            "maintenance": HTMLResponse("<h1>Down for maintenance</h1>", 503, headers=wait),
        }
        return odd.get(mode)


async def _as_fastapi_does(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _detail(error.status_code, error.detail)


def _detail(status: int, detail: str) -> Response:
    return JSONResponse({"detail": detail}, status)


def _bearer(request: Request) -> str | None:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token if kind.lower() == "bearer" and token else None


def _claims(token: str) -> dict[str, Any]:
    try:
        middle = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    except (IndexError, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _b64(plain: dict[str, Any]) -> str:
    return _unpadded(json.dumps(plain, separators=(",", ":")).encode())


def _unpadded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


@pytest.fixture
def openwebui(openai_upstream: OpenAiUpstream) -> Iterator[OpenWebui]:
    """An Open WebUI in front of ``openai_upstream``."""
    server = OpenWebui(openai_upstream)
    server.start()
    yield server
    server.kill()

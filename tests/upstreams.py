"""Model servers for tests: one OpenAI-compatible, one that speaks Anthropic's Messages API.

Each model has a mode, which may change while requests run.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.web import WebServer, cut, dripping, dropped, given_up

ANSWER = "Paris is the capital of France."
KEY = "sk-direct-provider-key-in-clear"

STATUS_MODES = {"429": 429, "500": 500, "503": 503, "401": 401, "529": 529}
"""Modes that are a status, with the provider's own kind of error body."""

MODES = (
    *STATUS_MODES,
    "answer",
    "hang",  # takes the request and says nothing
    "drop",  # resets the connection
    "drip",  # headers that never end, a byte at a time
    "drip_body",  # a body that never ends, a byte at a time
    "malformed",  # 200 and JSON, but no JSON
    "html",  # 200 and a page
    "empty",  # 200, JSON, no choices
    "cut",  # a body or a stream that ends in the middle
)


class Upstream(ABC):
    """A model server. ``modes`` holds for one model each, ``mode`` for all others.

    ``requests`` are those that reached a completion, with their headers in lower case.
    """

    completion_path = "/"
    models_path = "/v1/models"

    def __init__(self, *models: str, key: str = KEY) -> None:
        self.models = list(models)
        self.key = key
        self.mode = "answer"
        self.modes: dict[str, str] = {}
        self.retry_after: str | None = None
        self.listing: str = "answer"
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.server = WebServer(
            Starlette(
                routes=[
                    Route(self.models_path, self.list_models),
                    Route(self.completion_path, self.complete, methods=["POST"]),
                ]
            )
        )

    @property
    def url(self) -> str:
        return self.server.url

    def start(self) -> None:
        self.server.start()

    def kill(self) -> None:
        self.server.kill()

    def reset(self) -> None:
        """As it was in the beginning."""
        self.mode, self.modes, self.retry_after, self.listing = "answer", {}, None, "answer"
        self.requests.clear()
        self.headers.clear()

    @property
    def asked_models(self) -> list[str]:
        """The models of the completions asked for, in their order."""
        return [str(request.get("model")) for request in self.requests]

    async def list_models(self, request: Request) -> Response:
        if (refused := self.refused(request)) is not None:
            return refused
        if (odd := await self.misbehave(request, self.listing, "")) is not None:
            return odd
        return JSONResponse({"data": [self.described(model) for model in self.models]})

    async def complete(self, request: Request) -> Response:
        if (refused := self.refused(request)) is not None:
            return refused
        asked = await request.json()
        self.requests.append(asked)
        self.headers.append(dict(request.headers))
        model = str(asked.get("model"))
        if model not in self.models:
            return self.error(404, f"The model {model} does not exist")
        mode = self.modes.get(model, self.mode)
        if mode == "cut" and asked.get("stream"):
            return StreamingResponse(self.broken_off(model), media_type="text/event-stream")
        if (odd := await self.misbehave(request, mode, model)) is not None:
            return odd
        if asked.get("stream"):
            return StreamingResponse(self.stream(model), media_type="text/event-stream")
        return JSONResponse(self.answer(model))

    async def misbehave(self, request: Request, mode: str, model: str) -> Response | None:
        transport = self.server.transport_of(request)
        if mode in STATUS_MODES:
            return self.error(STATUS_MODES[mode], f"{mode} on purpose")
        if mode == "hang":
            await given_up(request)
        odd: dict[str, Response] = {
            "hang": dropped(transport),
            "drop": dropped(transport),
            "drip": dripping(transport),
            "drip_body": dripping(transport, body=True),
            "malformed": Response('{"choices": [{"mess', media_type="application/json"),
            "html": HTMLResponse("<!doctype html><title>Not what you asked for</title>"),
            "empty": JSONResponse({"object": "nothing", "model": model}),
            "cut": cut(transport, b'{"choices": ['),
        }
        return odd.get(mode)

    async def broken_off(self, model: str) -> AsyncIterator[str]:
        """The first events of a stream, and then no end."""
        sent = 0
        async for event in self.stream(model):
            yield event
            sent += 1
            if sent == 2:
                raise ConnectionResetError("cut on purpose")

    def retry_headers(self, status: int) -> dict[str, str]:
        wanted = status in {429, 503, 529} and self.retry_after is not None
        return {"Retry-After": str(self.retry_after)} if wanted else {}

    @abstractmethod
    def refused(self, request: Request) -> Response | None: ...

    @abstractmethod
    def error(self, status: int, message: str) -> Response: ...

    @abstractmethod
    def described(self, model: str) -> dict[str, Any]: ...

    @abstractmethod
    def answer(self, model: str) -> dict[str, Any]: ...

    @abstractmethod
    def stream(self, model: str) -> AsyncIterator[str]: ...


class OpenAiUpstream(Upstream):
    """Any OpenAI-compatible server."""

    completion_path = "/v1/chat/completions"

    def refused(self, request: Request) -> Response | None:
        if request.headers.get("authorization") == f"Bearer {self.key}":
            return None
        return self.error(401, "Incorrect API key provided")

    def error(self, status: int, message: str) -> Response:
        body = {"error": {"message": message, "type": "upstream", "code": status}}
        return JSONResponse(body, status, headers=self.retry_headers(status))

    def described(self, model: str) -> dict[str, Any]:
        return {"id": model, "object": "model", "owned_by": "tests"}

    def answer(self, model: str) -> dict[str, Any]:
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": ANSWER},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10},
        }

    async def stream(self, model: str) -> AsyncIterator[str]:
        for word in ANSWER.split(" "):
            choice = {"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}
            yield _event({"object": "chat.completion.chunk", "model": model, "choices": [choice]})
        choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
        yield _event({"object": "chat.completion.chunk", "model": model, "choices": [choice]})
        yield "data: [DONE]\n\n"


class AnthropicUpstream(Upstream):
    """Anthropic's Messages API."""

    completion_path = "/v1/messages"
    kinds: ClassVar = {
        400: "invalid_request_error",
        401: "authentication_error",
        404: "not_found_error",
        429: "rate_limit_error",
        500: "api_error",
        503: "api_error",
        529: "overloaded_error",
    }

    def refused(self, request: Request) -> Response | None:
        if request.headers.get("x-api-key") != self.key:
            return self.error(401, "invalid x-api-key")
        if "anthropic-version" not in request.headers:
            return self.error(400, "anthropic-version: header is required")
        return None

    async def complete(self, request: Request) -> Response:
        asked = await request.json()
        if self.refused(request) is None and not isinstance(asked.get("max_tokens"), int):
            return self.error(400, "max_tokens: Field required")
        if any(message.get("role") == "system" for message in asked.get("messages", ())):
            return self.error(400, "messages: system is a field of its own")
        return await super().complete(request)

    def error(self, status: int, message: str) -> Response:
        body = {"type": "error", "error": {"type": self.kinds[status], "message": message}}
        return JSONResponse(body, status, headers=self.retry_headers(status))

    def described(self, model: str) -> dict[str, Any]:
        return {"id": model, "type": "model", "display_name": model}

    def answer(self, model: str) -> dict[str, Any]:
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [{"type": "text", "text": ANSWER}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 3, "output_tokens": 7},
        }

    async def stream(self, model: str) -> AsyncIterator[str]:
        started = {**self.answer(model), "content": [], "stop_reason": None}
        yield _named("message_start", {"message": started})
        yield _named(
            "content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}
        )
        for word in ANSWER.split(" "):
            delta = {"type": "text_delta", "text": f"{word} "}
            yield _named("content_block_delta", {"index": 0, "delta": delta})
        yield _named("content_block_stop", {"index": 0})
        yield _named(
            "message_delta", {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}}
        )
        yield _named("message_stop", {})


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


def _named(kind: str, data: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n"


@pytest.fixture
def openai_upstream() -> Iterator[OpenAiUpstream]:
    """What stands behind an Open WebUI: a primary model and the playbook's fallbacks."""
    upstream = OpenAiUpstream("llama-3", "deepseek-chat", "gemini-pro", "gpt-4-turbo")
    upstream.start()
    yield upstream
    upstream.kill()


@pytest.fixture
def anthropic_upstream() -> Iterator[AnthropicUpstream]:
    """The direct road."""
    upstream = AnthropicUpstream("claude-test")
    upstream.start()
    yield upstream
    upstream.kill()

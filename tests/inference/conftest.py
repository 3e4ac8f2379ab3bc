"""An application that asks a model: its route in the control plane, both roads real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

import recovery.client
from recovery import routing
from recovery.controlplane import ControlPlane
from recovery.encryption import encrypt, new_key
from recovery.inference import Answer, AsyncClient, Client, Limits
from tests.openwebui import OpenWebui
from tests.servers import RedisServer, free_port
from tests.upstreams import KEY, AnthropicUpstream
from tests.waiting import until

TARGET = "openwebui/default"
PATIENT = Limits(total=60, connect=10, silence=30, stream=60)
QUESTION = "What is the capital of France?"


class SyncAsker:
    """The synchronous client, and how a test asks it."""

    def __init__(self, **options: Any) -> None:
        self.client = Client(**{"limits": PATIENT, **options})
        self.roads = self.client._roads

    def chat(self, *args: Any, **options: Any) -> Answer:
        return self.client.chat(*args, **options)

    def stream(self, *args: Any, **options: Any) -> tuple[list[str], Answer]:
        with self.client.stream(*args, **options) as stream:
            return list(stream), stream.answer

    def pieces(self, got: list[str], *args: Any) -> None:
        got.extend(self.client.stream(*args))

    def close(self) -> None:
        self.client.close()


class AsyncAsker:
    """The same of the asynchronous one, in one event loop."""

    def __init__(self, **options: Any) -> None:
        self.client = AsyncClient(**{"limits": PATIENT, **options})
        self.roads = self.client._roads
        self.runner = asyncio.Runner()

    def chat(self, *args: Any, **options: Any) -> Answer:
        return self.runner.run(self.client.chat(*args, **options))

    def stream(self, *args: Any, **options: Any) -> tuple[list[str], Answer]:
        async def read() -> tuple[list[str], Answer]:
            async with self.client.stream(*args, **options) as stream:
                return [piece async for piece in stream], stream.answer

        return self.runner.run(read())

    def pieces(self, got: list[str], *args: Any) -> None:
        async def read() -> None:
            async with self.client.stream(*args) as stream:
                async for piece in stream:
                    got.append(piece)  # noqa: PERF401 - what came before an error counts

        self.runner.run(read())

    def close(self) -> None:
        self.runner.run(self.client.aclose())
        self.runner.close()


@dataclass
class Askers:
    """Made with options; closed at the end of the test."""

    kind: type[SyncAsker | AsyncAsker]
    made: list[SyncAsker | AsyncAsker] = field(default_factory=list)

    def __call__(self, **options: Any) -> SyncAsker | AsyncAsker:
        self.made.append(self.kind(**options))
        return self.made[-1]


@pytest.fixture(params=[SyncAsker, AsyncAsker], ids=["sync", "async"])
def asker(request: pytest.FixtureRequest) -> Iterator[Askers]:
    askers = Askers(request.param)
    yield askers
    for made in askers.made:
        made.close()


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The key that decrypts tokens and the direct provider's, and nothing of the developer's."""
    monkeypatch.setattr("recovery.inference.roads.FIRST_WAIT", 40.0)
    monkeypatch.setenv("RECOVERY_SECRET_KEY", new_key())
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "RECOVERY_SECRET_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


@pytest.fixture
def control(control_redis: RedisServer) -> Iterator[ControlPlane]:
    control = ControlPlane(control_redis.client())
    yield control
    control.redis.close()


def direct(upstream: AnthropicUpstream, **options: Any) -> dict[str, Any]:
    return {
        "provider": "anthropic",
        "base_url": upstream.url,
        "model": "claude-test",
        "api_key_env": "ANTHROPIC_API_KEY",
        "headers": {},
        "anthropic_version": "2023-06-01",
        "max_tokens": 256,
        **options,
    }


@dataclass
class Stage:
    """Both roads, and the control plane that knows of them."""

    control: ControlPlane
    redis: RedisServer
    openwebui: OpenWebui
    anthropic: AnthropicUpstream

    def route(self, **changes: Any) -> None:
        """Change the route and see that this process has heard it."""
        changed = routing.change(self.control, TARGET, **changes)
        assert changed is not None
        from recovery.client.listener import LISTENER

        def is_heard() -> bool:
            text = LISTENER.routes.texts.get(TARGET)
            return text is not None and f'"generation":{changed.generation}' in text

        if LISTENER.routes.was_read:
            until(is_heard, seconds=40, what="the route is heard")

    def token(self) -> str:
        return encrypt(self.openwebui.token())


@pytest.fixture
def stage(
    environ: pytest.MonkeyPatch,
    control: ControlPlane,
    control_redis: RedisServer,
    openwebui: OpenWebui,
    anthropic_upstream: AnthropicUpstream,
) -> Iterator[Stage]:
    environ.setenv("RECOVERY_REDIS_URL", control_redis.url)
    stage = Stage(control, control_redis, openwebui, anthropic_upstream)
    recovery.client.stop()
    stage.route(
        road="openwebui",
        base_url=openwebui.url,
        model="llama-3",
        primary_model="llama-3",
        token=stage.token(),
        token_kind="jwt",
        direct=direct(anthropic_upstream),
    )
    recovery.client.start(control_redis.url)
    yield stage
    recovery.client.stop()


@pytest.fixture
def alone(environ: pytest.MonkeyPatch) -> Iterator[None]:
    """The control plane was never there."""
    recovery.client.stop()
    recovery.client.start(f"redis://127.0.0.1:{free_port()}/0")
    yield
    recovery.client.stop()

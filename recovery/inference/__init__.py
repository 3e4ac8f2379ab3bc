"""A model for an application: Open WebUI while it works, a direct provider while it does not.

    from recovery import inference

    print(inference.chat("Why is the sky blue?").text)

The control plane says by which road, with which token and which model; nobody has to be asked for
it at a call. What fails is told once and tried on the other road.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from recovery.errors import InferenceError, NoAnswer, NoRoad, RequestRejected, StreamBroken
from recovery.inference.aio import AsyncClient, AsyncStream
from recovery.inference.answers import Answer, Stop, Usage
from recovery.inference.call import Limits
from recovery.inference.conversation import Messages
from recovery.inference.sync import Client, Stream
from recovery.routes import Direct, Provider, Road

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncStream",
    "Client",
    "Direct",
    "InferenceError",
    "Limits",
    "Messages",
    "NoAnswer",
    "NoRoad",
    "Provider",
    "RequestRejected",
    "Road",
    "Stop",
    "Stream",
    "StreamBroken",
    "Usage",
    "achat",
    "astream",
    "chat",
    "stream",
]


def chat(messages: Messages, **options: Any) -> Answer:
    """``Client.chat`` of the client that all of this process share, with the default target."""
    return _client().chat(messages, **options)


def stream(messages: Messages, **options: Any) -> Stream:
    """``Client.stream`` of that client."""
    return _client().stream(messages, **options)


async def achat(messages: Messages, **options: Any) -> Answer:
    """``AsyncClient.chat`` of the client that all of this process share."""
    return await _async_client().chat(messages, **options)


def astream(messages: Messages, **options: Any) -> AsyncStream:
    """``AsyncClient.stream`` of that client."""
    return _async_client().stream(messages, **options)


@cache
def _client() -> Client:
    return Client()


@cache
def _async_client() -> AsyncClient:
    return AsyncClient()

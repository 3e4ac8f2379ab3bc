"""Anthropic's Messages API: translated from and to the one shape. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from recovery.inference.answers import Stop, Usage
from recovery.inference.conversation import SYSTEM_ROLES, Conversation
from recovery.inference.dialect import Malformed, Whole, mapping

_STOPS = {
    "end_turn": Stop.END,
    "stop_sequence": Stop.END,
    "max_tokens": Stop.LENGTH,
    "model_context_window_exceeded": Stop.LENGTH,
    "refusal": Stop.REFUSAL,
    "tool_use": Stop.TOOL,
}
_DATA_URL = re.compile(r"data:(?P<type>image/[a-z+.-]+);base64,(?P<data>.+)", re.DOTALL)
WARMEST = 1.0
"""OpenAI's temperature goes to 2, Anthropic's to 1."""


def body(said: Conversation, model: str, *, max_tokens: int, stream: bool) -> dict[str, Any]:
    system = [text for message in said.messages if _is_system(message) for text in _texts(message)]
    asked: dict[str, Any] = {
        "model": model,
        "max_tokens": said.max_tokens or max_tokens,
        "system": "\n\n".join(system) or None,
        "messages": _merged(said),
        "temperature": None if said.temperature is None else min(said.temperature, WARMEST),
        "top_p": said.top_p,
        "stop_sequences": list(said.stop) or None,
        "stream": stream or None,
    }
    return {name: value for name, value in asked.items() if value is not None}


def whole(decoded: Any) -> Whole:
    """Raises ``Malformed`` where it is no answer."""
    answer = mapping(decoded)
    content = answer.get("content")
    reason = answer.get("stop_reason")
    if not isinstance(content, list) or not isinstance(reason, str):
        raise Malformed("there is no content in it")
    texts = [block.get("text") for block in content if isinstance(block, Mapping)]
    return Whole(
        text="".join(text for text in texts if isinstance(text, str)),
        model=str(answer.get("model") or ""),
        stop=_STOPS.get(reason, Stop.OTHER),
        usage=_usage(answer.get("usage"), None),
    )


class Stream:
    """Takes one event after the other. Whole once ``message_stop`` was read, and not before."""

    def __init__(self) -> None:
        self.is_whole = False
        self.model = ""
        self.stop = Stop.OTHER
        self.usage: Usage | None = None

    def take(self, event: Mapping[str, Any]) -> str:
        """The text that came with it; raises ``Malformed`` where the event tells of a failure."""
        kind = event.get("type")
        if kind == "error":
            raise Malformed("it tells of a failure in the middle")
        if kind == "message_start":
            message = mapping(event.get("message"))
            self.model = str(message.get("model") or "")
            self.usage = _usage(message.get("usage"), None)
        elif kind == "message_delta":
            reason = mapping(event.get("delta")).get("stop_reason")
            self.stop = _STOPS.get(str(reason), Stop.OTHER)
            self.usage = _usage(event.get("usage"), self.usage)
        elif kind == "message_stop":
            self.is_whole = True
        elif kind == "content_block_delta":
            text = mapping(event.get("delta")).get("text")
            return text if isinstance(text, str) else ""
        return ""

    def end(self) -> None:
        """There is no such event here."""


def _is_system(message: Mapping[str, Any]) -> bool:
    return message["role"] in SYSTEM_ROLES


def _merged(said: Conversation) -> list[dict[str, Any]]:
    """The other messages, in blocks; what one side said in a row becomes one message."""
    merged: list[dict[str, Any]] = []
    for message in said.messages:
        blocks = [] if _is_system(message) else list(_blocks(message["content"]))
        if not blocks:
            continue
        if merged and merged[-1]["role"] == message["role"]:
            merged[-1]["content"] += blocks
        else:
            merged.append({"role": message["role"], "content": blocks})
    return merged


def _blocks(content: Any) -> Iterator[dict[str, Any]]:
    """An empty text is refused there, so it is left out."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    for part in parts:
        if part["type"] == "image_url":
            yield {"type": "image", "source": _source(part.get("image_url"))}
        elif part.get("text"):
            yield {"type": "text", "text": part["text"]}


def _source(image: Any) -> dict[str, str]:
    url = str(image.get("url") if isinstance(image, Mapping) else image)
    found = _DATA_URL.fullmatch(url)
    if found is None:
        return {"type": "url", "url": url}
    return {"type": "base64", "media_type": found["type"], "data": found["data"]}


def _texts(message: Mapping[str, Any]) -> Iterator[str]:
    for block in _blocks(message["content"]):
        if block["type"] == "text":
            yield block["text"]


def _usage(told: Any, before: Usage | None) -> Usage | None:
    """What an event does not say stays as it was."""
    if not isinstance(told, Mapping):
        return before
    known = (
        {"input_tokens": before.input_tokens, "output_tokens": before.output_tokens}
        if before
        else {}
    )
    said = {
        name: told[name]
        for name in ("input_tokens", "output_tokens")
        if isinstance(told.get(name), int)
    }
    both = {**known, **said}
    return Usage(**both) if len(both) == 2 else before  # noqa: PLR2004 - both

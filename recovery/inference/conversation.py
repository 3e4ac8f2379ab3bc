"""What an application says: its messages and options, checked before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Messages: TypeAlias = str | Sequence[Mapping[str, Any]]

SYSTEM_ROLES = frozenset({"system", "developer"})
ROLES = SYSTEM_ROLES | {"user", "assistant"}
PARTS = frozenset({"text", "image_url"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """``model``: ``None`` for the active one. What is ``None`` is left to the provider."""

    messages: Sequence[Mapping[str, Any]]
    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: Sequence[str] = ()


def conversation(
    messages: Messages,
    *,
    system: str | None = None,
    model: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    stop: str | Sequence[str] = (),
) -> Conversation:
    """A text is one message of the user. Raises ``ValueError`` where it cannot be sent."""
    said = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
    if system is not None:
        said.insert(0, {"role": "system", "content": system})
    for place, message in enumerate(said):
        _check(place, message)
    if not any(message["role"] not in SYSTEM_ROLES for message in said):
        raise ValueError("a conversation needs a message of the user")
    return Conversation(
        messages=said,
        model=model,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
    )


def _check(place: int, message: Mapping[str, Any]) -> None:
    """What a message says is not repeated: it is nobody's business but the model's."""
    role = message.get("role")
    if role not in ROLES:
        raise ValueError(f"message {place}: its role is none of {', '.join(sorted(ROLES))}")
    content = message.get("content")
    if isinstance(content, str):
        return
    if not isinstance(content, list | tuple) or not all(
        isinstance(part, Mapping) and part.get("type") in PARTS for part in content
    ):
        raise ValueError(
            f"message {place}: its content is neither a text nor a list of {sorted(PARTS)}"
        )

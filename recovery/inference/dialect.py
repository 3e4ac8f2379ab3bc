"""What two ways of speaking to a model have in common, and events of a stream as both send them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from recovery.inference.answers import Stop, Usage

LONGEST_LINE = 1024 * 1024


class Malformed(ValueError):
    """What came is no answer in this way of speaking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """An answer as it was read."""

    text: str
    model: str
    stop: Stop
    usage: Usage | None


class StreamState(Protocol):
    """What is known of an answer while it comes in."""

    is_whole: bool
    model: str
    stop: Stop
    usage: Usage | None

    def take(self, event: Mapping[str, Any]) -> str: ...

    def end(self) -> None: ...


class Events:
    """Server-sent events from bytes that come in any portions: their data, line by line."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Raises ``Malformed`` where a line has no end."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            raise Malformed("a line of it has no end")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip().decode(errors="replace")


def decoded(data: str) -> Mapping[str, Any]:
    """One event; raises ``Malformed`` where it is none."""
    try:
        return mapping(json.loads(data))
    except (ValueError, RecursionError):
        raise Malformed("an event of it is no JSON") from None


def mapping(found: Any) -> Mapping[str, Any]:
    if not isinstance(found, Mapping):
        raise Malformed("something of it has another shape")
    return found

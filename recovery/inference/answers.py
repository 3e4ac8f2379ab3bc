"""What an application gets: an answer, by whichever road it came, in one shape."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from recovery.routes import Road


class Stop(StrEnum):
    """Why the model ended its answer."""

    END = "end"
    LENGTH = "length"
    REFUSAL = "refusal"
    TOOL = "tool"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens, as the provider counted them."""

    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer: what was cut off is never one.

    ``road``: how it came. ``after``: the failure of the road that was tried first, or empty.
    ``usage``: ``None`` where the provider did not say.
    """

    text: str
    model: str
    stop: Stop
    road: Road
    usage: Usage | None = None
    after: str = ""

    def __str__(self) -> str:
        return self.text

"""What the children of a rebuild are told on their standard input, and how they answer.

Each answer is a line of JSON; the last one with ``verdict`` counts.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MISSING = "missing.jsonl"
SUPPLEMENT = "supplement"
TEXTS = "texts.jsonl"
KNOWN = "known.jsonl"
INDEX = "index"
"""Names within the folder of one rebuild."""

LOCKED = "locked"
"""The verdict of a child that found the database locked for as long as it could wait."""

UNREADABLE = "unreadable"
"""The verdict of a child that could not read the database at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyOrder:
    """Which indexes of a directory are damaged, by their files. Times in seconds."""

    path: str
    tenant: str
    database: str
    timeout: float
    patience: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOrder:
    """Build one collection's index in ``place``, a private folder on the same filesystem.

    ``segment`` is the damaged index, whose folder has that name.
    """

    path: str
    place: str
    collection: str
    segment: str | None
    timeout: float
    patience: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedOrder:
    """Embed the documents of the records that ``MISSING`` in ``place`` names."""

    path: str
    place: str
    collection: str
    segment: str | None
    function: str
    timeout: float
    patience: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TextsOrder:
    """Embed the documents that ``TEXTS`` in ``place`` has; ``KNOWN`` has some with their vectors.

    ``recorded``: what the collection says of its embedding function.
    """

    place: str
    function: str
    recorded: dict[str, Any]
    dimension: int
    timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """One collection and its index, as the survey found it. ``problem`` is None where the files
    are well, ``is_listed`` false where the database does not know ``segment`` as its index."""

    id: str
    name: str
    segment: str | None
    dimension: int | None
    records: int
    problem: str | None
    is_own: bool
    is_listed: bool = True


def begin() -> dict[str, Any]:
    """The order; from now on this process ends when its time is over, and leaves no core file."""
    order: dict[str, Any] = json.load(sys.stdin)
    signal.setitimer(signal.ITIMER_REAL, order["timeout"] + 1.0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        # Where memory runs out, a rebuild goes before the database that it is for.
        Path("/proc/self/oom_score_adj").write_text("800")
    return order


def say(**what: Any) -> None:
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


class Progress:
    """Says how much is done: the whole of it at once, the way to it no oftener than one reads."""

    EVERY_SECONDS = 0.5

    def __init__(self, total: int, doing: str) -> None:
        self._total = max(total, 1)
        self._doing = doing
        self._done = 0
        self._said = time.monotonic()

    def add(self, number: int) -> None:
        self._done += number
        is_done = self._done >= self._total
        if is_done or time.monotonic() - self._said >= self.EVERY_SECONDS:
            self._said = time.monotonic()
            say(doing=self._doing, percent=int(100 * self._done / self._total))

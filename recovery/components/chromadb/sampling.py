"""Whether a collection gives back what it holds: a few of its own vectors must find themselves.

Bounded whatever the size: a handful of records spread over the collection, one query for each.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from recovery.components.chromadb.findings import Budget, Examined, Finding, from_message
from recovery.events import Figure

SAMPLE = 16
MOST_HITS = 50
MAY_MISS = 0.25
"""The share of the sample that may miss itself: the index is approximate, and among many
duplicates even more so."""
SAME = 1e-3
"""A squared distance below this is the vector itself, or its duplicate."""
LOST_VECTOR = "Error finding id"
"""What Chroma says, asked for the vector of a record that its index does not know."""

Vector = Sequence[float]
Sample = list[tuple[str, Vector]]


class CollectionError(Exception):
    """The collection could not be asked; the text is Chroma's own."""


class Collection(Protocol):
    """One collection, however it is reached. Every call raises ``CollectionError``."""

    name: str
    space: str | None

    def count(self) -> int: ...

    def page(self, offset: int, limit: int) -> list[tuple[str, Vector]]:
        """Ids and vectors, in the order in which they were added."""
        ...

    def query(self, vector: Vector, hits: int) -> list[tuple[str, float]]:
        """Ids and distances, the nearest first."""
        ...


def examine(
    collection: Collection,
    budget: Budget,
    *,
    at_least: int = 0,
    latency_ms: float,
    draw: Callable[[], Sample] | None = None,
) -> Examined:
    """Count, read a sample, query with it. ``latency_ms`` is the limit of one query.

    ``draw`` reads the sample where there is a faster way than page by page.
    """
    figures: dict[str, Figure] = {}
    try:
        return Examined(
            finding=_look(
                collection, budget, figures, at_least=at_least, latency_ms=latency_ms, draw=draw
            ),
            figures=figures,
        )
    except CollectionError as error:
        known = from_message(str(error))
        said = Finding(
            failure_type=known.failure_type, summary=f"{collection.name}: {known.summary}"
        )
        return Examined(finding=said, figures=figures)


def _look(
    collection: Collection,
    budget: Budget,
    figures: dict[str, Figure],
    *,
    at_least: int,
    latency_ms: float,
    draw: Callable[[], Sample] | None,
) -> Finding | None:
    count = figures["counted"] = collection.count()
    if count < at_least:
        return Finding(
            failure_type="data_corruption",
            summary=f"{collection.name} holds {count} records; at least {at_least} are expected",
        )
    try:
        sample = draw() if draw else _sample(collection, count, budget)
    except CollectionError as error:
        if LOST_VECTOR not in str(error):
            raise
        return Finding(
            failure_type="index_incomplete", summary=f"{collection.name}: records without a vector"
        )
    figures["sampled"] = len(sample)
    for identity, vector in sample:
        if not _is_finite(vector):
            return _damaged(collection, f"the vector of {identity!r} holds no numbers")
    return _query_all(collection, sample, budget, figures, latency_ms)


def _sample(collection: Collection, count: int, budget: Budget) -> Sample:
    """From the first record to the last: what an index lost, it mostly lost in one piece."""
    sample: Sample = []
    for offset in offsets(count):
        if budget.is_over and sample:
            break
        sample += collection.page(offset, 1)
    return sample


def offsets(count: int) -> list[int]:
    """Where to read: one record drawn from each of as many equal parts as the sample is large."""
    if count <= SAMPLE:
        return list(range(count))
    part = count / SAMPLE
    return [int((number + random.random()) * part) for number in range(SAMPLE)]  # noqa: S311 - which records are looked at is no secret


def _query_all(
    collection: Collection,
    sample: Sample,
    budget: Budget,
    figures: dict[str, Figure],
    latency_ms: float,
) -> Finding | None:
    seconds: list[float] = []
    found = 0
    for identity, vector in sample:
        if budget.is_over and seconds:
            break
        began = time.perf_counter()
        hits = collection.query(vector, MOST_HITS)
        seconds.append(time.perf_counter() - began)
        if len(hits) < MOST_HITS and (few := _too_few(collection, hits)):
            return few
        if not all(math.isfinite(distance) for _, distance in hits):
            return _damaged(collection, "a query answers with distances that are no numbers")
        found += _is_among(identity, hits, collection.space)
    figures["queried"] = len(seconds)
    if not seconds:
        return None
    figures["query_ms"] = round(statistics.median(seconds) * 1000, 2)
    figures["found_themselves"] = found
    missed = len(seconds) - found
    if missed > MAY_MISS * len(seconds):
        return Finding(
            failure_type="index_incomplete",
            summary=f"{collection.name}: {missed} of {len(seconds)} vectors do not find themselves",
        )
    if statistics.median(seconds) * 1000 > latency_ms:
        return Finding(
            failure_type="high_latency",
            summary=f"{collection.name}: a query takes {figures['query_ms']} ms",
        )
    return None


def _too_few(collection: Collection, hits: list[tuple[str, float]]) -> Finding | None:
    """Counted anew, since records may have gone meanwhile."""
    expected = min(MOST_HITS, collection.count())
    if len(hits) >= expected:
        return None
    return Finding(
        failure_type="index_incomplete",
        summary=f"{collection.name}: a query for {expected} hits returns {len(hits)}",
    )


def _is_among(identity: str, hits: list[tuple[str, float]], space: str | None) -> bool:
    # By inner product a vector is not its own nearest: only the number of hits says something.
    return space == "ip" or any(name == identity or distance < SAME for name, distance in hits)


def _is_finite(vector: Vector) -> bool:
    return bool(vector) and all(math.isfinite(number) for number in vector)


def _damaged(collection: Collection, what: str) -> Finding:
    return Finding(failure_type="index_corrupted", summary=f"{collection.name}: {what}")

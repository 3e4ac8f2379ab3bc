"""A served ChromaDB, asked over HTTP alone: what a client would meet."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import partial

from recovery.components.chromadb import neighbours, sampling
from recovery.components.chromadb.api import ChromaServer, ServedCollection, Unanswered
from recovery.components.chromadb.findings import (
    Budget,
    Examined,
    Finding,
    from_names,
    without_place,
)
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import TargetRefused

MOST_COLLECTIONS = 16
"""How many collections one probe asks: the expected ones first, the rest by chance."""


def listen(target: ChromaTarget, url: str, budget: Budget) -> Examined:
    """Heartbeat and names only, which costs milliseconds whatever the size."""
    examined = Examined()
    try:
        with ChromaServer(target, url, budget) as server:
            _greet(target, server, examined)
    except (TargetRefused, Unanswered) as error:
        examined.finding = _finding(error)
    return examined


Known = Callable[[str], Sequence[str]]
"""Ids of some records of a collection, by its own id, to whoever can read the server's files."""


def examine(target: ChromaTarget, url: str, budget: Budget, known: Known | None = None) -> Examined:
    """The collections listed, and some of them counted, read and queried.

    A server finds a record by its place in a time that grows with the place; by its id, at once.
    """
    examined = Examined()
    try:
        with ChromaServer(target, url, budget) as server:
            _converse(target, server, budget, examined, known)
    except (TargetRefused, Unanswered) as error:
        examined.finding = _finding(error)
    return examined


def _converse(
    target: ChromaTarget,
    server: ChromaServer,
    budget: Budget,
    examined: Examined,
    known: Known | None,
) -> None:
    listed = _greet(target, server, examined)
    own = [one for one in listed if _is_own(target, one.name)]
    mixed = random.sample(own, len(own))
    few = sorted(mixed, key=lambda found: found.name not in target.collections)[:MOST_COLLECTIONS]
    asked = 0
    for collection in few:
        if examined.finding is not None or (asked and budget.is_over):
            return
        ids = known(collection.id) if known else ()
        examined.add(_examine(target, server, collection, budget, ids))
        asked += 1
    examined.figures.update(asked=asked, depth="query")


def _greet(
    target: ChromaTarget, server: ChromaServer, examined: Examined
) -> list[ServedCollection]:
    began = time.perf_counter()
    server.heartbeat()
    listed = server.collections(target.collections)
    latency_ms = round((time.perf_counter() - began) * 1000, 2)
    names = {found.name for found in listed if not neighbours.is_claim(found.name)}
    own = sum(_is_own(target, name) for name in names)
    examined.figures.update(latency_ms=latency_ms, collections=own, depth="names")
    gone = None
    if not listed and not server.has_database():
        gone = without_place(target.tenant, target.database)
    missing = from_names(list(target.collections), list(names), is_empty=not names)
    examined.finding = gone or missing or _cut_off(names)
    if examined.finding is None and latency_ms > target.thresholds.latency_ms:
        examined.finding = Finding(
            failure_type="high_latency", summary=f"heartbeat and names took {latency_ms} ms"
        )
    return listed


def _is_own(target: ChromaTarget, name: str) -> bool:
    """What an exchange put aside may be as damaged as it was; nobody is served from it."""
    return name in target.collections or not neighbours.is_one(name)


def _cut_off(names: set[str]) -> Finding | None:
    """Whoever exchanges them lets a name be nobody's for milliseconds; a killed one, for ever."""
    found = next(neighbours.cut_off(names), None)
    if found is None:
        return None
    return Finding(
        failure_type="collection_missing",
        summary=f"{found.name}: not there; its exchange was cut off, {found.owner} is due",
    )


def _examine(
    target: ChromaTarget,
    server: ChromaServer,
    collection: ServedCollection,
    budget: Budget,
    ids: Sequence[str],
) -> Examined:
    try:
        return sampling.examine(
            collection,
            budget,
            at_least=target.collections.get(collection.name, 0),
            latency_ms=target.thresholds.latency_ms,
            draw=partial(_named, collection, ids) if ids else None,
        )
    except Unanswered as error:
        return Examined(finding=_broken_off(server, collection.name, error))


def _named(collection: ServedCollection, ids: Sequence[str]) -> sampling.Sample:
    """Some may have been deleted since; raises ``CollectionError`` where too many are not there."""
    found = collection.named(ids)
    missing = len(ids) - len(found)
    if missing > sampling.MAY_MISS * len(ids):
        raise sampling.CollectionError(
            f"{missing} of {len(ids)} records of its database are not in its answer"
        )
    return found


def _broken_off(server: ChromaServer, name: str, error: Unanswered) -> Finding:
    """A damaged index kills the server that queries it, so that no heartbeat is left either."""
    said = error.finding
    if not error.dropped:
        return said
    try:
        server.heartbeat()
    except Unanswered:
        return Finding(failure_type="index_corrupted", summary=f"a query of {name} ended it")
    return said


def _finding(error: TargetRefused | Unanswered) -> Finding:
    if isinstance(error, Unanswered):
        return error.finding
    return Finding(failure_type="auth_failure", summary=error.message)

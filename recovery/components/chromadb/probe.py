"""The health check of a ChromaDB: its directory from outside, then what a client would meet.

The directory comes first: what is wrong there explains a server that is away, and a server is not
asked what is known to kill it.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from recovery.components.chromadb import child, database, served, view
from recovery.components.chromadb.findings import (
    Budget,
    Examined,
    Finding,
    from_database,
    from_names,
)
from recovery.components.chromadb.target import ChromaTarget
from recovery.events import ProbeReport

LOOKS = 3


def probe(target: ChromaTarget, timeout: float) -> ProbeReport:
    """Look at everything that ``timeout`` seconds allow; ``depth`` among the figures says how far.

    Raises ``RemedyError`` where the inspection itself cannot run.
    """
    budget = Budget(timeout)
    examined = Examined()
    if target.path is not None:
        examined = child.inspect(target, target.path, budget)
    if examined.finding is None and target.server is not None:
        asked = served.examine(target, target.server, budget)
        asked.figures = {**examined.figures, **asked.figures}
        examined = asked
    return examined.as_report(_well(examined))


def light(target: ChromaTarget, timeout: float) -> ProbeReport:
    """What costs milliseconds: the database's header and folders, heartbeat, names; no child."""
    budget = Budget(timeout)
    examined = Examined(figures={"depth": "header"})
    if target.path is not None:
        examined.finding = _glance(target, target.path, budget)
    if examined.finding is None and target.server is not None:
        examined = served.listen(target, target.server, budget)
    return examined.as_report(_well(examined))


def _glance(target: ChromaTarget, path: Path, budget: Budget) -> Finding | None:
    """The header, the listed collections, and a folder for each index that was ever saved."""
    for _ in range(LOOKS):
        before = view.signature(path)
        try:
            finding = database.look_at_file(path) or _glance_inside(target, path, budget)
        except PermissionError as error:
            return Finding(failure_type="auth_failure", summary=f"{error.filename} may not be read")
        if finding is None or before == view.signature(path):
            return finding
    # Files that never stand still belong to an application that writes them.
    return None


def _glance_inside(target: ChromaTarget, path: Path, budget: Budget) -> Finding | None:
    if view.is_being_written(path):
        return None
    try:
        with database.opened(path, budget, immutable=True) as connection, database.in_time():
            listing = database.glance(connection, target.tenant, target.database)
    except database.OutOfTime:
        return None
    except sqlite3.DatabaseError as error:
        return from_database(error)
    expected = list(target.collections)
    missing = listing.missing or from_names(
        expected, listing.names, is_empty=not listing.collections
    )
    judged = (_saved(path / segment, name) for segment, name in listing.saved.items())
    return missing or next(filter(None, judged), None)


def _saved(folder: Path, collection: str) -> Finding | None:
    """An index that was saved once has all of its files, and without its map it is not searched."""
    gone = [name for name in view.INDEX_NAMES if not (folder / name).exists()]
    if not gone:
        return None
    return Finding(
        failure_type="index_incomplete" if view.PICKLE in gone else "index_corrupted",
        summary=f"{collection}: {', '.join(gone)} of its index not there",
    )


def _well(examined: Examined) -> str:
    figures = examined.figures
    said = [f"{figures['collections']} collections"] if "collections" in figures else []
    if "query_ms" in figures:
        said.append(f"a query takes {figures['query_ms']} ms")
    if "depth" in figures:
        said.append(f"looked as deep as {figures['depth']}")
    return ", ".join(said)

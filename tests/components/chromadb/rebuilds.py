"""What the tests of rebuilds share: a run, its undo, and all that a directory holds."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from recovery.components.chromadb.index_rebuild import (
    IndexRebuild,
    RebuildScope,
    index_rebuild,
)
from recovery.components.chromadb.rebuild_undo import discard
from recovery.components.chromadb.rebuild_undo import undo as undo_index_rebuild
from recovery.components.chromadb.target import ChromaTarget
from tests.chroma import ChromaDirectory, ask
from tests.journals import RECOVERY, MemoryJournal

OWN = {"embedding_functions": {"docs": "tests.embeddings:own"}}


def local(directory: ChromaDirectory, **said: Any) -> ChromaTarget:
    return ChromaTarget(path=directory.path, **{"collections": {"docs": 0}, **said})


def rebuild(
    target: ChromaTarget, state: Path, *, collection: str | None = None, **said: Any
) -> MemoryJournal:
    journal = said.pop("journal", None) or MemoryJournal(state, seconds=120)
    journal.scope = RebuildScope(collection=collection)
    assert index_rebuild.remedy is not None
    index_rebuild.remedy(target, IndexRebuild(**said), journal)
    return journal


def undo_rebuild(
    target: ChromaTarget, state: Path, of: str = RECOVERY, undo: str = "undo", **said: Any
) -> MemoryJournal:
    journal = MemoryJournal(state, recovery_id=undo, seconds=120, **said)
    kept = MemoryJournal(state, recovery_id=of).keep()
    undo_index_rebuild(target, IndexRebuild(), journal, kept)
    return journal


def discard_rebuild(target: ChromaTarget, state: Path, of: str = RECOVERY) -> None:
    discard(target, IndexRebuild(), MemoryJournal(state, recovery_id=of).keep())


def contents(directory: ChromaDirectory) -> dict[str, Any]:
    """Every collection as Chroma itself gives it: settings, and all of each record."""
    done = ask("contents", directory.path)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def is_alike(one: dict[str, Any], other: dict[str, Any], *, exact: bool = True) -> bool:
    """Whether two collections hold the same: vectors up to what a float32 rounds."""
    if {k: v for k, v in one.items() if k != "records"} != {
        k: v for k, v in other.items() if k != "records"
    }:
        return False
    if one["records"].keys() != other["records"].keys():
        return False
    return all(
        one["records"][name][1:] == other["records"][name][1:]
        and (not exact or _is_near(one["records"][name][0], other["records"][name][0]))
        for name in one["records"]
    )


def _is_near(one: list[float], other: list[float]) -> bool:
    return all(abs(a - b) <= 1e-4 * max(abs(a), 1) for a, b in zip(one, other, strict=True))


def digests(directory: ChromaDirectory, besides: set[str]) -> dict[str, str]:
    """Of every file but the database and some folders, and of every table but what names indexes.

    Of tables that tell of several collections, the lines of all.
    """
    found = {}
    for file in sorted(directory.path.rglob("*")):
        top = file.relative_to(directory.path).parts[0]
        if file.is_file() and top not in {*besides, directory.database.name}:
            found[str(file.relative_to(directory.path))] = _digest(file.read_bytes())
    with closing(sqlite3.connect(directory.database)) as database:
        tables = [
            name
            for (name,) in database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
            )
        ]
        for table in tables:
            rows = database.execute(f"SELECT * FROM '{table}'").fetchall()
            if table in ("segments", "max_seq_id"):
                rows = [row for row in rows if row[0] not in besides]
            found[table] = _digest(repr(sorted(map(repr, rows))).encode())
    return found


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

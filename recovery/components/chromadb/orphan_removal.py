"""``chromadb.orphan_removal``: folders that deleted collections left, put aside on request."""

from __future__ import annotations

import shutil
import sqlite3
from functools import partial
from pathlib import Path

from recovery.components.chromadb import database, exclusive, orphans, swap
from recovery.components.chromadb.findings import from_names
from recovery.components.chromadb.snapshots import contents
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import NotConfigured, NotKept, NotReplaceable, RemedyError
from recovery.strategy import Duration, Journal, Kept, Parameters, strategy

BUSY_SECONDS = 10.0


class OrphanRemoval(Parameters):
    """``older_than``: how long nothing in such a folder may have changed."""

    older_than: Duration = 3600.0


@strategy(
    component="chromadb",
    summary="Put aside the folders that deleted collections left behind.",
    parameters=OrphanRemoval,
    judges_itself=True,
    undo="recovery.components.chromadb.orphan_removal:undo",
    discard="recovery.components.chromadb.orphan_removal:discard",
    timeout_seconds=30.0,
)
def orphan_removal(target: ChromaTarget, parameters: OrphanRemoval, journal: Journal) -> None:
    """Raises ``NotConfigured`` where the target has no path, ``RemedyError`` where its database
    does not tell which folders are in use, ``NotReplaceable`` where one cannot be moved."""
    if target.path is None:
        raise NotConfigured("add the key path to the target", {"key": "path"})
    path = target.path
    with exclusive.alone(path, min(BUSY_SECONDS, journal.remaining())):
        left = orphans.find(path, _known(target, path), parameters.older_than)
        size = round(sum(left.values()) / 1e6, 1)
        journal.note("looked for folders of deleted collections", folders=len(left), mb=size)
        if not left:
            return
        aside = swap.beside(path, journal.recovery_id, "orphans")
        if not journal.dry_run:
            _describe(journal.keep(), path, aside, sorted(left), size)
        for name in sorted(left):
            journal.change(f"{name} moved to {aside}", partial(_move, path / name, aside / name))


def undo(target: ChromaTarget, _parameters: OrphanRemoval, journal: Journal, kept: Kept) -> None:
    """Raises ``NotKept`` where one of them is gone from where it was put."""
    aside = Path(kept.facts["aside"])
    names: list[str] = list(kept.facts["folders"])
    path = target.path
    if path is None or str(path) != kept.facts["path"]:
        raise NotKept(f"the target is not at {kept.facts['path']} any more")
    with exclusive.alone(path, min(BUSY_SECONDS, journal.remaining())):
        gone = [one for one in names if not (aside / one).is_dir() and not (path / one).is_dir()]
        if gone:
            raise NotKept(f"{len(gone)} of {len(names)} folders are not in {aside} any more")
        for name in names:
            if (aside / name).is_dir():
                journal.change(f"{name} is back", partial(_move, aside / name, path / name))


def discard(_target: ChromaTarget, _parameters: OrphanRemoval, kept: Kept) -> None:
    """Remove what was put aside, for good."""
    shutil.rmtree(kept.facts.get("aside", ""), ignore_errors=True)


def _known(target: ChromaTarget, path: Path) -> frozenset[str]:
    """What is in use. A database that was emptied would make an orphan of every index."""
    try:
        found = database.look_at_file(path)
        if found is None:
            known = contents.read(path)
            found = from_names(
                list(target.collections), list(known.names), is_empty=not known.names
            )
            if found is None and known.segments:
                return known.segments
        why = found.summary if found else "it lists no index at all"
    except (sqlite3.Error, OSError) as error:
        why = str(error)
    raise RemedyError(f"the database does not tell which folders are in use: {why}")


def _describe(kept: Kept, path: Path, aside: Path, names: list[str], size: float) -> None:
    """Before anything moves; what a killed run moved already is named as well."""
    known = {*names, *kept.facts.get("folders", ())}
    kept.store(
        f"{len(known)} folders of deleted collections, {size} MB",
        path=str(path),
        aside=str(aside),
        lies_beside=[str(aside)],
        folders=sorted(known),
    )


def _move(source: Path, to: Path) -> None:
    try:
        to.parent.mkdir(mode=0o700, exist_ok=True)
        source.rename(to)
    except OSError as error:
        raise NotReplaceable(f"{source} cannot be moved: {error.strerror}") from error

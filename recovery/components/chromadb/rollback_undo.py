"""The undo of ``chromadb.snapshot_rollback``: the directory from before, whatever its state was."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from recovery.components.chromadb import exclusive, leftovers, swap
from recovery.components.chromadb.server import ServerProcess
from recovery.components.chromadb.snapshot_rollback import BUSY_SECONDS, SnapshotRollback
from recovery.components.chromadb.snapshots import contents
from recovery.components.chromadb.swap import Swap
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import NotConfigured, NotKept, RemedyError, WouldOverwrite
from recovery.strategy import Journal, Kept


def undo(target: ChromaTarget, parameters: SnapshotRollback, journal: Journal, kept: Kept) -> None:
    """Exchange the two directories again; the one that is replaced is kept under the undo's id.

    Raises ``NotKept`` where the one from before is gone, ``WouldOverwrite`` where records were
    written since and that may not be undone with it.
    """
    if "path" not in kept.facts:
        from recovery.components.chromadb import served_replacement

        served_replacement.undo(target, journal, kept)
        return
    if target.path is None:
        raise NotConfigured("the target has no path any more", {"key": "path"})
    path = target.path
    with exclusive.alone(path, min(BUSY_SECONDS, journal.remaining())):
        if not journal.dry_run and _is_exchanged(path, journal):
            journal.note("taken up again where the directory from before has its place")
        else:
            _exchange(target, path, parameters, journal, kept)
        _start(target, path, journal)
        if not journal.dry_run:
            journal.keep().store(f"{path} from before the undo", mark=_mark(path))
    journal.tell_applications("applications asked to open it anew", "reopen")


def discard(target: ChromaTarget, _parameters: SnapshotRollback, kept: Kept) -> None:
    """Remove the directory or the collections that were put aside."""
    from recovery.components.chromadb import served_replacement

    served_replacement.discard(target, kept)
    aside = kept.facts.get("aside")
    if aside is not None and kept.recovery_id in aside:
        swap.remove(Path(aside))


def _is_exchanged(path: Path, journal: Journal) -> bool:
    """Whether this undo had done that before it was killed; whatever was left half done is not."""
    finished = leftovers.settle(path)
    is_ours = finished is not None and finished.recovery_id == journal.recovery_id
    return is_ours or swap.beside(path, journal.recovery_id, "old").is_dir()


def _exchange(
    target: ChromaTarget,
    path: Path,
    parameters: SnapshotRollback,
    journal: Journal,
    kept: Kept,
) -> None:
    before = Path(kept.facts.get("aside") or path.with_name(".none"))
    if kept.facts.get("path") != str(path) or not before.is_dir():
        raise NotKept(f"the directory from before is not at {before} any more")
    _refuse_newer(path, journal, kept)
    aside = swap.beside(path, journal.recovery_id, "old")
    if target.server is not None:
        server = ServerProcess(target, journal.remaining)
        if not journal.dry_run:
            exclusive.note_stopped(path)
        journal.change("server stopped", lambda: server.stop(parameters.stop_grace))
    journal.change(
        f"{before} is {path} again; what was there is {aside}",
        lambda: _swap(path, before, aside, journal),
    )


def _swap(path: Path, before: Path, aside: Path, journal: Journal) -> None:
    own = journal.keep()
    own.store(
        f"{path} from before the undo",
        path=str(path),
        aside=str(aside),
        lies_beside=[str(aside)],
        mark=None,
    )
    begun = Swap.begin(path, before, aside, journal.recovery_id)
    try:
        begun.forward()
    except BaseException:
        begun.back()
        begun.end()
        raise
    begun.end()


def _refuse_newer(path: Path, journal: Journal, kept: Kept) -> None:
    mark, now = kept.facts.get("mark"), _mark(path)
    if None not in (mark, now) and now != mark and not journal.overwrite:
        raise WouldOverwrite(
            f"{path} was written to since the rollback; with overwrite it is kept aside and"
            " replaced"
        )


def _start(target: ChromaTarget, path: Path, journal: Journal) -> None:
    """It may have been brought back broken: then its server does not start, and that is said."""
    if target.server is None or journal.dry_run:
        return
    try:
        exclusive.start_again(target, path, journal.remaining)
    except RemedyError as error:
        exclusive.forget_stopped(path)
        journal.note("it is back, and its server does not start on it", why=error.message)


def _mark(path: Path) -> str | None:
    """By which it shows whether anybody wrote; None where its database does not say."""
    try:
        return contents.read(path).mark
    except (sqlite3.Error, OSError):
        return None

"""The child process that looks at a Chroma directory: ``python -m`` this module, order on stdin.

A directory is not trusted: opening it may kill whoever does. So this runs beside the worker, prints
what it is about to do before it does it, and may die of it. It only reads: see ``view`` for why
Chroma itself is shown a copy. The only lock that it ever holds on the application's database is
SQLite's read lock, while it copies one that never stands still.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from recovery.components.chromadb import database, orphans, view
from recovery.components.chromadb.database import Catalogue, OutOfTime, Segment
from recovery.components.chromadb.findings import (
    Budget,
    Examined,
    Finding,
    from_database,
    from_message,
    from_names,
)
from recovery.events import Figure

LOOKS = 3
"""What is found in files that change meanwhile is looked at again, so often at most."""
LOCK_PATIENCE = 0.7
"""Seconds for which a lock is held, and nothing is written, until it counts as forgotten."""
LOOK_PAUSE = 0.02
FILES_SHARE = 0.5
"""The share of the time that the files may take; the rest is for opening the copy."""
OPENING_SECONDS = 1.0
"""With less than this left, opening is not begun: that would prove nothing."""
MOST_LOGGED = 5_000
"""Chroma indexes the log anew whenever it opens; past this many records that takes too long."""
MOST_COLLECTIONS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to look at. ``view`` is an empty private folder; ``timeout`` in seconds is for all."""

    path: str
    view: str
    timeout: float
    tenant: str
    database: str
    latency_ms: float
    collections: dict[str, int] = field(default_factory=dict)
    judges_files: bool = True
    opens: bool = True


def main() -> NoReturn:
    if find_spec("numpy") is not None:
        # Whoever began this early has not said yet what is to be looked at.
        import recovery.components.chromadb.index_files  # noqa: F401
    order = Order(**json.load(sys.stdin))
    # Whoever asked may die; this process then ends by itself, and leaves no huge core file.
    signal.setitimer(signal.ITIMER_REAL, order.timeout + 1.0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        # Where memory runs out, a probe goes first, and never the database that it looks at.
        Path("/proc/self/oom_score_adj").write_text("1000")
    if order.opens and find_spec("chromadb") is not None:
        _import_chroma_meanwhile()
    say(verdict=Inspection(order).run().as_dict())
    # An import that nobody needs any more is not waited for, nor taken apart under its feet.
    os._exit(0)


def _import_chroma_meanwhile() -> None:
    """Half of a deep look is this import; the files are looked at beside it.

    What that needs is imported first: of two threads that import what imports each other, as the
    parts of numpy do, one gets to see half of it.
    """
    from recovery.components.chromadb import index_files, sampling  # noqa: F401

    threading.Thread(target=_import_chroma, daemon=True).start()


def _import_chroma() -> None:
    """What is wrong with it shows, by its name, when it is used."""
    with suppress(BaseException):
        import recovery.components.chromadb.opened  # noqa: F401 - kept by the interpreter


def say(**what: Any) -> None:
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


class Inspection:
    """One look at a directory, repeated where it changed meanwhile."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.path = Path(order.path)
        self.budget = Budget(order.timeout)
        self.figures: dict[str, Figure] = {}
        self.segments: list[Segment] = []
        self.before: view.Signature = ()
        self.is_copied = False

    def run(self) -> Examined:
        try:
            finding = self._insist()
        except PermissionError as error:
            finding = Finding(
                failure_type="auth_failure", summary=f"{error.filename} may not be read"
            )
        return Examined(finding=finding, figures=self.figures)

    def _insist(self) -> Finding | None:
        """A finding counts when the files that it was found in stood still.

        An application that writes replaces an index piece by piece, so that every look at it may
        meet another half. The database is copied under its read lock the last time.
        """
        for number in range(LOOKS):
            is_last = number == LOOKS - 1
            self.before = view.signature(self.path)
            copy = Path(self.order.view) / str(number)
            copy.mkdir()
            finding = self._look(copy, consistently=is_last)
            if finding is None:
                return None
            after = view.signature(self.path)
            folder = self.path / (finding.segment or "")
            if view.within(self.before, folder) == view.within(after, folder):
                return finding
            if is_last and finding.segment is None and self.is_copied:
                return finding
            shutil.rmtree(copy)
        self.figures["moving"] = True
        return None

    def _look(self, copy: Path, *, consistently: bool) -> Finding | None:
        say(stage="database")
        finding = database.look_at_file(self.path) or self._forgotten_lock()
        if finding is not None:
            return finding
        room = view.free_bytes(copy)
        size = view.database_bytes(self.path)
        self.figures.update(database_mb=round(size / 1e6, 1), depth="header")
        self.is_copied = size <= room
        if not self.is_copied and view.is_being_written(self.path):
            return None
        try:
            if self.is_copied and not self._copy(copy, consistently=consistently):
                return None
            catalogue = self._read(copy if self.is_copied else self.path)
        except sqlite3.DatabaseError as error:
            return from_database(error)
        except OutOfTime:
            return None
        finding = self._judge(catalogue) or self._judge_indexes()
        if finding is not None or not (self.is_copied and self._may_open()):
            return finding
        return self._open(copy, room - size)

    def _copy(self, copy: Path, *, consistently: bool) -> bool:
        """False where a busy writer left no moment for a consistent copy."""
        if not consistently:
            view.copy_database(self.path, copy)
            return True
        try:
            view.copy_consistently(self.path, copy)
        except sqlite3.OperationalError:
            self.figures["moving"] = True
            return False
        return True

    def _forgotten_lock(self) -> Finding | None:
        """A writer that works keeps changing its files; one that only holds a lock blocks all."""
        began, standing = time.monotonic(), view.signature(self.path)
        while (holder := database.lock_holder(self.path)) is not None:
            waited = time.monotonic() - began
            if standing != view.signature(self.path):
                return None
            if waited > LOCK_PATIENCE:
                by = f"process {holder}" if holder else "another process"
                return Finding(
                    failure_type="temporary_failure",
                    summary=f"the database has been locked for {waited:.1f} s by {by}",
                )
            time.sleep(LOOK_PAUSE)
        return None

    def _read(self, folder: Path) -> Catalogue:
        share = Budget(self.budget.left() * FILES_SHARE)
        with database.opened(folder, share, immutable=not self.is_copied) as connection:
            with database.in_time():
                catalogue = database.read(connection, self.order.tenant, self.order.database)
            self.segments = catalogue.segments
            self.figures["collections"] = catalogue.collections
            self.figures["records"] = sum(segment.records for segment in catalogue.segments)
            try:
                catalogue.finding = database.check(connection) or catalogue.finding
                self.figures["integrity"] = "checked"
            except OutOfTime:
                self.figures["integrity"] = "out of time"
        return catalogue

    def _judge(self, catalogue: Catalogue) -> Finding | None:
        self.figures["depth"] = "database"
        self._count_orphans(catalogue)
        if catalogue.finding is not None:
            return catalogue.finding
        return from_names(
            list(self.order.collections), catalogue.names, is_empty=not catalogue.collections
        )

    def _count_orphans(self, catalogue: Catalogue) -> None:
        """Folders of deleted collections are no damage; they only take room."""
        left = orphans.find(self.path, catalogue.folders)
        if left:
            self.figures["orphan_folders"] = len(left)
            self.figures["orphan_mb"] = round(sum(left.values()) / 1e6, 1)

    def _judge_indexes(self) -> Finding | None:
        if find_spec("numpy") is None or not self.order.judges_files:
            return None
        from recovery.components.chromadb import index_files

        say(stage="index")
        share = Budget(self.budget.left() * FILES_SHARE)
        judged = 0
        for segment in self._in_order():
            if share.is_over and judged:
                break
            try:
                finding = index_files.examine(self.path, segment, share)
            except index_files.UnknownFormat as unknown:
                self.figures["index_format"] = str(unknown)
                continue
            if finding is not None:
                return replace(finding, segment=segment.id)
            judged += 1
        self.figures["indexes_judged"] = judged
        self.figures["depth"] = "index"
        return None

    def _in_order(self) -> list[Segment]:
        """The expected ones first, the rest by chance, so that repeated looks reach all."""
        mixed = random.sample(self.segments, len(self.segments))
        return sorted(mixed, key=lambda segment: not self._is_expected(segment))

    def _is_expected(self, segment: Segment) -> bool:
        return segment.is_own and segment.collection in self.order.collections

    def _may_open(self) -> bool:
        if not self.order.opens:
            return False
        return find_spec("chromadb") is not None and self.budget.left() >= OPENING_SECONDS

    def _open(self, copy: Path, room: int) -> Finding | None:
        """Show Chroma the copy, and have what it opened find its own vectors."""
        few = [s for s in self._in_order() if s.is_own and s.logged <= MOST_LOGGED]
        ids = [segment.id for segment in few[:MOST_COLLECTIONS]]
        copied = set(view.copy_indexes(self.path, copy, ids, room))
        few = [segment for segment in few if segment.id in copied]
        say(stage="open", figures=self.figures)
        from recovery.components.chromadb import opened, sampling

        try:
            served = opened.open_collections(
                copy, self.order.tenant, self.order.database, [s.collection for s in few]
            )
        except sampling.CollectionError as error:
            return from_message(str(error))
        found, asked = Examined(figures=self.figures), 0
        for segment in few:
            if asked and self.budget.left() < OPENING_SECONDS / 2:
                break
            say(
                stage="open",
                segment=segment.id,
                seen=view.within(self.before, self.path / segment.id),
                name=segment.collection,
                figures=self.figures,
            )
            found.add(
                sampling.examine(
                    served[segment.collection],
                    self.budget,
                    at_least=self.order.collections.get(segment.collection, 0),
                    latency_ms=self.order.latency_ms,
                )
            )
            asked += 1
            if found.finding is not None:
                return replace(found.finding, segment=segment.id)
        self.figures.update(opened=asked, depth="query")
        return None


if __name__ == "__main__":
    main()

"""A rebuild in a process of its own that is killed with SIGKILL, and what must hold afterwards."""

from __future__ import annotations

import multiprocessing
import random
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recovery.components.chromadb import database, index_files
from recovery.components.chromadb.findings import Budget
from recovery.components.chromadb.rebuilding import work
from tests.chroma import ChromaDirectory
from tests.components.chromadb.rebuilds import contents, is_alike, local, rebuild
from tests.journals import MemoryJournal

LATE = "found right"
"""From this step on it takes milliseconds until the new index is in place."""
LATE_SECONDS = 0.3

_fork = multiprocessing.get_context("fork")


@dataclass(slots=True)
class Rebuilding:
    """One damaged directory under rebuilds that are killed. ``seen``: how the kills left it."""

    directory: ChromaDirectory
    state: Path
    whole: dict[str, Any]
    longest: float = 5.0
    run: str = "first"
    old: str = ""
    seen: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, template: ChromaDirectory, folder: Path, name: str) -> Rebuilding:
        made = cls(template.copy(folder / name / "chroma"), folder / name / "state", {})
        made.whole = contents(made.directory)
        made.old = made.directory.segment.name
        (made.directory.segment / "header.bin").unlink()
        return made

    def kill_once(self) -> bool:
        """Half of the kills fall into the last moments; False where it was done by then."""
        reached = _fork.Event()
        is_late = random.random() < 0.5
        process = _fork.Process(target=self._act, args=(reached, is_late))
        process.start()
        reached.wait(120)
        began = time.monotonic()
        process.join(random.uniform(0, LATE_SECONDS if is_late else self.longest))
        was_killed = process.is_alive()
        process.kill()
        process.join()
        if not was_killed:
            assert process.exitcode == 0, f"the rebuild failed: {process.exitcode}"
            self.longest = max(time.monotonic() - began, 1.0)
        self.seen.add(self.state_now())
        return was_killed

    def _act(self, reached: Any, is_late: bool) -> None:
        journal = MemoryJournal(self.state, recovery_id=self.run, seconds=120)
        if is_late:
            journal.after(LATE, reached.set)
        else:
            reached.set()
        try:
            rebuild(local(self.directory), self.state, journal=journal)
        finally:
            reached.set()

    def state_now(self) -> str:
        """``old`` or ``new``; fails where it is neither."""
        path = self.directory.path
        with closing(sqlite3.connect(self.directory.database)) as connection:
            assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
            catalogue = database.read(connection, "default_tenant", "default_database")
        assert catalogue.finding is None
        (docs,) = [one for one in catalogue.segments if one.collection == "docs"]
        if docs.id == self.old:
            assert (path / docs.id / "data_level0.bin").is_file()
            return "old"
        assert index_files.examine(path, docs, Budget(60)) is None
        return "new"

    def finish(self, run: str) -> None:
        """The next attempt, of the same recovery or of another, completes."""
        self.run = run
        if self.state_now() == "old" or run == "first":
            process = _fork.Process(target=self._act, args=(_fork.Event(), False))
            process.start()
            process.join()
            assert process.exitcode == 0
        assert self.state_now() == "new"
        assert is_alike(self.whole["docs"], contents(self.directory)["docs"])
        work.sweep(self.directory.path)
        assert not list(self.directory.path.glob(f"{work.PREFIX}*"))

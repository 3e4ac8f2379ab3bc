"""Rollbacks in processes of their own, killed with SIGKILL at random moments: for test and bench.

What must hold at every such moment: under the directory's name is wholly the damaged directory or
wholly the restored one, byte by byte, and the next attempt completes.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path

from recovery.components.chromadb.rollback_undo import discard
from recovery.components.chromadb.snapshot_rollback import SnapshotRollback, snapshot_rollback
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import RemedyError
from recovery.runtime import CommandRuntime
from tests.chroma import ChromaDirectory, noise
from tests.journals import MemoryJournal
from tests.servers import free_port

SECONDS = 120.0
PARAMETERS = SnapshotRollback()

STEPS = ("", "unpacked", "server stopped", "replaced", "server started")

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__, "recovery.components.chromadb.served"])

Run = Callable[[ChromaTarget, MemoryJournal], object]


def forward(target: ChromaTarget, journal: MemoryJournal) -> None:
    journal.begin(SECONDS)
    snapshot_rollback.remedy(target, PARAMETERS, journal)


def back(target: ChromaTarget, journal: MemoryJournal) -> None:
    """The server ends as soon as it is started, and the damaged directory is put back."""
    try:
        forward(target, journal)
    except RemedyError:
        return
    raise AssertionError("a server that cannot start was taken to be well")


def without_server(target: ChromaTarget) -> ChromaTarget:
    """The same directory, of a server that never comes up."""
    runtime = CommandRuntime(
        kind="command", name="never", start=("sh", "-c", "exit 3"), folder="/tmp"
    )
    url = f"http://127.0.0.1:{free_port()}"
    return target.model_copy(update={"runtime": runtime, "url": url})


@dataclass(slots=True)
class Kills:
    """One damaged directory and the rollbacks of it that are killed."""

    target: ChromaTarget
    directory: ChromaDirectory
    folder: Path
    run: Run = forward
    seen: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    longest: float = 0.0
    damaged: str = ""
    restored: str = ""

    def prepare(self) -> None:
        """Damage it, and see how long an undisturbed run takes, and what it leaves."""
        self._damage()
        began = time.monotonic()
        self._complete("first")
        self.longest = time.monotonic() - began
        if self.run is forward:
            self.restored = digest(self.directory.path)
            return
        forward(self.target.model_copy(update={"runtime": None, "url": None}), self._journal("one"))
        self.restored = digest(self.directory.path)
        discard(self.target, PARAMETERS, self._journal("one").keep())

    def round(self, number: int, kills: int = 2) -> None:
        """Some killed in a row, and then one that is left to complete."""
        self._damage()
        journal = self._journal(str(number))
        for _ in range(kills):
            # Most of the time goes into few steps; the moments between the others are short.
            step = random.choice(STEPS)
            reached = _context.Event()
            if step:
                journal.after(step, reached.set)
            arguments = (self.run, self.target, journal, environ(), reached, step)
            child = _context.Process(target=_run, args=arguments)
            child.start()
            journal.watchers.clear()
            reached.wait()
            child.join(self.longest * random.random() ** 4)
            child.kill()
            child.join()
            self.kills += child.exitcode == -9
            self._look()
        self._complete(str(number))
        wanted = self.restored if self.run is forward else self.damaged
        assert digest(self.directory.path) == wanted, "the next attempt did not complete"
        left = [one.name for one in self.directory.path.parent.glob(".*.recovery*")]
        assert left == [], f"left behind: {left}"

    def _damage(self) -> None:
        noise(self.directory.segment / "data_level0.bin")
        self.damaged = digest(self.directory.path)

    def _journal(self, name: str) -> MemoryJournal:
        return MemoryJournal(self.folder / "state", recovery_id=f"r{name}")

    def _complete(self, name: str) -> None:
        journal = self._journal(name)
        self.run(self.target, journal)
        discard(self.target, PARAMETERS, journal.keep())
        shutil.rmtree(journal.keep().folder, ignore_errors=True)

    def _look(self) -> None:
        found = digest(self.directory.path)
        names = {self.damaged: "old", self.restored: "new"}
        assert found in names, "neither the old directory nor the new one"
        note = self.directory.path.with_name(f".{self.directory.path.name}.recovery.json")
        began = "swapping" if note.exists() else "staging" if self._is_staged() else "at rest"
        self.seen[f"{names[found]}, {began}"] += 1

    def _is_staged(self) -> bool:
        return any(self.directory.path.parent.glob(".*.recovery-*.new"))


def environ() -> dict[str, str]:
    """The server that forks may have been started with another environment."""
    return dict(os.environ)


def _run(
    run: Run,
    target: ChromaTarget,
    journal: MemoryJournal,
    said: dict[str, str],
    reached: Event,
    step: str,
) -> None:
    os.environ.update(said)
    if not step:
        reached.set()
    try:
        run(target, journal)
    finally:
        # A run that resumes another may not need the step.
        reached.set()


def digest(folder: Path) -> str:
    """Of every file below a folder, by its name and its content."""
    found = hashlib.sha256()
    for file in sorted(one for one in folder.rglob("*") if one.is_file()):
        found.update(str(file.relative_to(folder)).encode())
        found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()

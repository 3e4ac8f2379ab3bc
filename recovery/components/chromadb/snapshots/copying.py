"""A private copy of a Chroma directory as of one moment; the directory itself is only read.

While the last of it is copied, SQLite's write lock is held: applications that write wait for it,
those that read go on. The files of an index may still change then, once at most, since Chroma
saves what its log held before; so they are looked at until they stand still.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from recovery.components.chromadb.database import JOURNALS, NAME
from recovery.components.chromadb.rebuilding.work import PREFIX as REBUILDING
from recovery.errors import NotCopied, TargetUnreachable
from recovery.runtime import Remaining

LOCK_SECONDS = 10.0
"""How long the write lock is waited for; a writer of Chroma holds it for milliseconds."""
ROUNDS = 5
QUIET_SECONDS = 0.25
"""How long the files of the indexes must have stood still before they are believed to."""
CHUNK_BYTES = 8 * 1024 * 1024
MOST_FILES = 100_000

Seen = tuple[int, int, int]
"""Inode, bytes and time of change: equal in two looks, nobody wrote between them."""


@dataclass(slots=True)
class DirectoryCopy:
    """One copy in the making. ``skipped`` names what is no regular file, and is not copied."""

    source: Path
    place: Path
    remaining: Remaining
    copied: dict[str, Seen] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def ahead(self) -> None:
        """Copy what is large and seldom changes, while everybody goes on; may be left out.

        Raises ``NotCopied``.
        """
        with _named(self.source):
            self.place.mkdir(parents=True, exist_ok=True)
            self._catch_up()

    def finish(self) -> None:
        """Copy the database, and what changed since; the copy is then of this moment.

        Raises ``NotCopied`` where the files do not stand still or cannot be copied, and
        ``TargetUnreachable`` where somebody else does not let go of the database.
        """
        with _named(self.source), self._writers_waiting():
            self.place.mkdir(parents=True, exist_ok=True)
            self._copy_database()
            for _ in range(ROUNDS):
                self._await_quiet()
                if not self._catch_up():
                    return
        raise NotCopied(f"the indexes in {self.source} do not stand still")

    def _await_quiet(self) -> None:
        """An index that is just being saved is written file by file, with pauses between them."""
        while (age := self._age()) < QUIET_SECONDS:
            time.sleep(min(QUIET_SECONDS - age, self.remaining()))

    def _age(self) -> float:
        newest = max((changed for _, _, changed in self._look().values()), default=0)
        # A clock that was set back must not make this wait for ever.
        age = time.time() - newest / 1e9
        return age if age >= 0 else QUIET_SECONDS

    @contextmanager
    def _writers_waiting(self) -> Iterator[None]:
        """Nothing of this process may open the database by other means meanwhile: closing it would
        give the lock away."""
        patience = min(LOCK_SECONDS, self.remaining())
        address = f"{(self.source / NAME).as_uri()}?mode=rw"
        with closing(
            sqlite3.connect(address, uri=True, timeout=patience, isolation_level=None)
        ) as held:
            try:
                held.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if "locked" in str(error):
                    raise TargetUnreachable(
                        f"{self.source / NAME} has been locked by another process for"
                        f" {patience:.0f} s"
                    ) from error
                raise
            yield
            held.execute("ROLLBACK")

    def _copy_database(self) -> None:
        (self.place / NAME).unlink(missing_ok=True)
        address = f"{(self.source / NAME).as_uri()}?mode=ro"
        with (
            closing(sqlite3.connect(address, uri=True)) as theirs,
            closing(sqlite3.connect(self.place / NAME)) as ours,
        ):
            # A copy that is cut short is thrown away, so it needs no journal of its own.
            ours.execute("PRAGMA synchronous=OFF")
            ours.execute("PRAGMA journal_mode=OFF")
            theirs.backup(ours, pages=-1)

    def _catch_up(self) -> int:
        """Copy what is new or changed, remove what is gone; how many files that were."""
        found = self._look()
        changed = [name for name, seen in found.items() if self.copied.get(name) != seen]
        gone = [name for name in self.copied if name not in found]
        for name in changed:
            self.remaining()
            self._copy(name)
        for name in gone:
            (self.place / name).unlink(missing_ok=True)
        self.copied = {name: seen for name, seen in found.items() if (self.place / name).exists()}
        return len(changed) + len(gone)

    def _look(self) -> dict[str, Seen]:
        """Every regular file below the directory, on its own filesystem, without the database."""
        found: dict[str, Seen] = {}
        skipped: list[str] = []
        device = self.source.stat().st_dev
        for base, folders, names in os.walk(self.source, onerror=_raise):
            here = Path(base).relative_to(self.source)
            for name in list(folders):
                if name.startswith(REBUILDING):
                    # Of an index that is being built, which never stands still and is no data.
                    folders.remove(name)
                    continue
                info = (Path(base) / name).lstat()
                if not stat.S_ISDIR(info.st_mode) or info.st_dev != device:
                    folders.remove(name)
                    skipped.append(str(here / name))
            for name in names:
                path = str(here / name)
                if path == NAME or path in JOURNALS:
                    continue
                try:
                    info = (Path(base) / name).lstat()
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(info.st_mode):
                    found[path] = (info.st_ino, info.st_size, info.st_mtime_ns)
                else:
                    skipped.append(path)
            if len(found) > MOST_FILES:
                raise NotCopied(f"{self.source} holds more than {MOST_FILES} files")
        self.skipped = sorted(skipped)
        return found

    def _copy(self, name: str) -> None:
        target = self.place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            source = os.open(self.source / name, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        try:
            with target.open("wb") as sink:
                while chunk := os.read(source, CHUNK_BYTES):
                    sink.write(chunk)
                os.fchmod(sink.fileno(), stat.S_IMODE(os.fstat(source).st_mode) & 0o777)
        finally:
            os.close(source)


@contextmanager
def _named(source: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotCopied(f"{error.filename or source} cannot be copied: {error.strerror}") from error
    except sqlite3.Error as error:
        raise NotCopied(f"the database in {source} cannot be copied: {error}") from error


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error

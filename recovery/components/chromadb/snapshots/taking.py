"""Taking one snapshot: copy, pack, restore, have Chroma read what was restored, and only then keep.

The target is only read, or stopped for the moment of the copy. A killed one leaves a folder that
does not count, and a note that the server has to be started again.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from recovery.components.chromadb import exclusive, leftovers
from recovery.components.chromadb.leftovers import START_SECONDS
from recovery.components.chromadb.server import ServerProcess
from recovery.components.chromadb.snapshots import archive, contents, manifest, verifying
from recovery.components.chromadb.snapshots.catalogue import Catalogue
from recovery.components.chromadb.snapshots.contents import Contents
from recovery.components.chromadb.snapshots.copying import DirectoryCopy
from recovery.components.chromadb.snapshots.manifest import Manifest
from recovery.components.chromadb.target import ChromaTarget, Method
from recovery.deadline import Deadline
from recovery.errors import NotConfigured, NotCopied, SnapshotDamaged, TargetBusy
from recovery.runtime import Remaining
from recovery.version import __version__

ROUNDS = 3
"""A copy that does not read may have met an index in the middle of being saved: taken again."""
BUSY_SECONDS = 10.0

AGAIN_SECONDS = 900.0
"""How long the schedule leaves a target alone after an attempt that failed."""

Note = Callable[[str], None]


def settings(target: ChromaTarget) -> tuple[Path, Catalogue]:
    """The directory to copy and the catalogue for it; raises ``NotConfigured``."""
    if target.path is None:
        raise NotConfigured(
            "a directory is copied on the host that has it: add the key path to the target",
            {"key": "path"},
        )
    return target.path, catalogue_of(target)


def catalogue_of(target: ChromaTarget) -> Catalogue:
    """Raises ``NotConfigured``."""
    if target.snapshots.directory is None:
        raise NotConfigured(
            "the policy does not say where snapshots are kept: integration.snapshot_dir",
            {"key": "snapshots.directory"},
        )
    contradiction = target.contradiction()
    if contradiction is not None:
        raise NotConfigured(contradiction, {"key": "snapshots.directory"})
    return Catalogue(target.snapshots.directory)


def take(
    target: ChromaTarget,
    ref: str,
    *,
    method: Method | None = None,
    note: Note = lambda _: None,
) -> Manifest:
    """Take, verify and keep one. Raises ``RemedyError`` of every kind, and then nothing is kept."""
    if target.path is None and method is None:
        # Every worker knows every task; only who runs this one pays for the HTTP client.
        from recovery.components.chromadb.snapshots import exporting

        return exporting.take(target, ref, catalogue_of(target), note)
    path, catalogue = settings(target)
    how = method or target.snapshots.method
    remaining = Deadline(target.snapshots.timeout).remaining
    with exclusive.alone(catalogue.directory, BUSY_SECONDS):
        catalogue.sweep()
        catalogue.note_attempt()
        for number in range(ROUNDS):
            try:
                made = _Taking(target, ref, path, catalogue, how, remaining).run()
            except SnapshotDamaged as error:
                if number == ROUNDS - 1:
                    raise
                note(f"taken again: {error.message}")
            except TargetBusy:
                catalogue.forget_attempt()
                raise
            else:
                _retain(path, catalogue, target.snapshots.keep, note)
                return made
    raise AssertionError("unreachable")


def _retain(path: Path, catalogue: Catalogue, keep: int, note: Note) -> None:
    """Not while a rollback may be reading one of them; the next snapshot does it then."""
    try:
        with exclusive.alone(path, 0):
            catalogue.retain(keep, note)
    except TargetBusy as error:
        note(f"retention waits for the next snapshot: {error.message}")


@dataclass(slots=True)
class _Taking:
    """One attempt; ``ref`` is the target's name with its component."""

    target: ChromaTarget
    ref: str
    path: Path
    catalogue: Catalogue
    method: Method
    remaining: Remaining
    stopped_seconds: float = 0.0

    def run(self) -> Manifest:
        self._need_room()
        place = self.catalogue.begin(self.catalogue.free_name())
        try:
            return self._make(place)
        except OSError as error:
            raise NotCopied(f"{error.filename or place}: {error.strerror}") from error
        finally:
            # Renamed where it counts; otherwise nothing of it is to stay.
            shutil.rmtree(place, ignore_errors=True)

    def _need_room(self) -> None:
        """For the copy and its archive, and then for the archive and what is restored from it."""
        try:
            size = sum(
                (Path(base) / name).lstat().st_size
                for base, _, names in os.walk(self.path)
                for name in names
            )
        except OSError as error:
            raise NotCopied(f"{error.filename}: {error.strerror}") from error
        self.catalogue.need_room(2 * size, "a snapshot")

    def _make(self, place: Path) -> Manifest:
        taken_at, copy = self._copy(place / "copy")
        known = _read(copy.place)
        names = sorted(name for name in _files(copy.place) if not _is_orphaned(name, known))
        packed = archive.pack(copy.place, names, place / manifest.ARCHIVE, self.remaining)
        shutil.rmtree(copy.place)
        made = Manifest(
            name=place.name.partition("-")[2],
            target=self.ref,
            taken_at=taken_at,
            method=self.method,
            chroma="",
            schema_versions=known.schema_versions,
            position=known.position,
            archive_bytes=packed.bytes,
            archive_sha256=packed.sha256,
            files=packed.files,
            skipped=tuple(copy.skipped[:100]),
            collections=(),
            queried=0,
            verified_at=taken_at,
            stopped_seconds=round(self.stopped_seconds, 3),
        )
        made = self._verified(place, made)
        self.catalogue.commit(place, made)
        return made

    def _copy(self, place: Path) -> tuple[datetime, DirectoryCopy]:
        """The directory is nobody else's for so long; what comes after holds up no repair."""
        with exclusive.alone(self.path, BUSY_SECONDS):
            leftovers.settle(self.path)
            exclusive.start_again(self.target, self.path, Deadline(START_SECONDS).remaining)
            copy = DirectoryCopy(self.path, place, self.remaining)
            copy.ahead()
            with self._server_stopped() if self.method == "stop" else _undisturbed():
                copy.finish()
            return datetime.now(UTC), copy

    @contextmanager
    def _server_stopped(self) -> Iterator[None]:
        """Never killed: a Chroma that is killed may leave an index torn."""
        server = ServerProcess(self.target, self.remaining)
        if not server.inspect().running:
            yield
            return
        exclusive.note_stopped(self.path)
        began = time.monotonic()
        try:
            server.stop(self.target.snapshots.grace, kill=False)
            yield
        finally:
            exclusive.start_again(self.target, self.path, Deadline(START_SECONDS).remaining)
            self.stopped_seconds = time.monotonic() - began

    def _verified(self, place: Path, made: Manifest) -> Manifest:
        began = time.monotonic()
        restored = place / "restored"
        restored.mkdir()
        archive.unpack(place / manifest.ARCHIVE, made, restored, self.remaining)
        is_judged = verifying.judge(restored, self.target, self.remaining)
        found = verifying.verify(restored, self.target, self.remaining)
        shutil.rmtree(restored)
        return made.model_copy(
            update={
                "chroma": found.chroma,
                "collections": found.collections,
                "queried": found.queried,
                "judged_by": __version__ if is_judged else None,
                "verified_at": datetime.now(UTC),
                "verified_seconds": round(time.monotonic() - began, 3),
            }
        )


@contextmanager
def _undisturbed() -> Iterator[None]:
    yield


def _read(copy: Path) -> Contents:
    try:
        return contents.read(copy)
    except sqlite3.Error as error:
        raise SnapshotDamaged(f"the copy's database cannot be read: {error}") from error


def _files(folder: Path) -> Iterator[str]:
    for base, _, names in os.walk(folder):
        for name in names:
            yield str((Path(base) / name).relative_to(folder))


def _is_orphaned(name: str, known: Contents) -> bool:
    return known.is_orphan(name.partition("/")[0])


def is_due(target: ChromaTarget, now: datetime) -> bool:
    """Whether the policy's interval has passed since the newest; where nobody knows, it is due.

    Raises ``NotConfigured``.
    """
    interval = target.snapshots.interval
    if interval is None:
        return False
    catalogue = catalogue_of(target)
    age = catalogue.newest_age(now)
    tried = catalogue.tried_ago(now)
    may_try = tried is None or tried >= min(interval, AGAIN_SECONDS)
    return may_try and (age is None or age >= interval)

"""The snapshots of one target on this host's disk: found, listed, retained.

A folder counts when it has its final name and a manifest that can be read: it gets that name last.
Everything that is being made or removed has a name that begins with a dot.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from recovery.components.chromadb.snapshots import manifest
from recovery.components.chromadb.snapshots.manifest import Manifest
from recovery.errors import NoSnapshot, NotCopied

MAKING = ".making-"
REMOVING = ".removing-"
ATTEMPT = ".attempt"
FREE_SHARE = 0.05
"""The part of a disk that is never filled: the host needs it to live."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """``directory`` holds the snapshots of one target, and nothing else."""

    directory: Path

    def snapshots(self) -> list[Manifest]:
        """Newest first; what cannot be read is passed over."""
        found = (self._read(folder) for folder in self._folders())
        return sorted(filter(None, found), key=lambda one: (one.taken_at, one.name), reverse=True)

    def unreadable(self) -> list[str]:
        """Folders that look like snapshots and are none any more."""
        return sorted(folder.name for folder in self._folders() if self._read(folder) is None)

    def find(self, name: str) -> Manifest:
        """Raises ``NoSnapshot``."""
        known = self.snapshots()
        for one in known:
            if one.name == name:
                return one
        names = [one.name for one in known]
        said = ", ".join(names[:5]) or "none"
        raise NoSnapshot(
            f"{self.directory} has no snapshot {name[:80]!r}; there are: {said}",
            {"snapshots": names},
        )

    def archive(self, name: str) -> Path:
        return self.directory / name / manifest.ARCHIVE

    def begin(self, name: str) -> Path:
        """An empty folder in which one is made; raises ``NotCopied``."""
        place = self.directory / f"{MAKING}{name}"
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            place.mkdir(mode=0o700)
        except OSError as error:
            raise NotCopied(f"{place} cannot be made: {error.strerror}") from error
        return place

    def free_name(self) -> str:
        """The time of its beginning, and a number where there is one of that second already."""
        name = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        number = 1
        while (self.directory / (found := name if number == 1 else f"{name}-{number}")).exists():
            number += 1
        return found

    def commit(self, place: Path, made: Manifest) -> None:
        """Write the manifest and give the folder its name; from then on it counts."""
        try:
            _write(place / manifest.FILE, made.model_dump_json(indent=1))
            _sync(place)
            place.rename(self.directory / made.name)
            _sync(self.directory)
        except OSError as error:
            raise NotCopied(f"{place} cannot be finished: {error.strerror}") from error

    def retain(self, keep: int) -> list[str]:
        """Remove all but the newest; the names of those that are gone."""
        gone = [one.name for one in self.snapshots()[keep:]]
        for name in gone:
            (self.directory / name).rename(self.directory / f"{REMOVING}{name}")
        self.sweep()
        return gone

    def sweep(self) -> None:
        """Remove what a killed process left; call it with the target's lock held."""
        for prefix in (MAKING, REMOVING):
            for folder in self.directory.glob(f"{prefix}*"):
                shutil.rmtree(folder, ignore_errors=True)

    def need_room(self, size: int, what: str) -> None:
        """Raises ``NotCopied`` where the disk has not so many bytes to spare."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        need_room(self.directory, size, what)

    def newest_age(self, now: datetime) -> float | None:
        """Seconds since the newest was taken."""
        known = self.snapshots()
        return known[0].age(now) if known else None

    def note_attempt(self) -> None:
        """Raises ``NotCopied``."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            (self.directory / ATTEMPT).write_text("")
        except OSError as error:
            raise NotCopied(f"{self.directory} cannot be written: {error.strerror}") from error

    def tried_ago(self, now: datetime) -> float | None:
        """Seconds since one was last begun, whatever became of it."""
        try:
            return max(now.timestamp() - (self.directory / ATTEMPT).stat().st_mtime, 0.0)
        except FileNotFoundError:
            return None

    def _folders(self) -> Iterator[Path]:
        if self.directory.is_dir():
            for entry in os.scandir(self.directory):
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                    yield Path(entry.path)

    def _read(self, folder: Path) -> Manifest | None:
        file = folder / manifest.FILE
        try:
            if file.stat().st_size > manifest.MOST_BYTES:
                return None
            found = Manifest.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            return None
        return found if found.name == folder.name else None


def need_room(place: Path, size: int, what: str) -> None:
    """Raises ``NotCopied`` where the filesystem has not so many bytes to spare."""
    disk = shutil.disk_usage(place)
    spare = disk.free - int(disk.total * FREE_SHARE)
    if size > spare:
        raise NotCopied(
            f"{what} needs {size / 1e6:.1f} MB below {place}, and {max(spare, 0) / 1e6:.1f} MB"
            " can be spared"
        )


def _write(path: Path, text: str) -> None:
    with path.open("w") as sink:
        sink.write(text)
        sink.flush()
        os.fsync(sink.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The snapshots of one target on this host's disk: found, ordered, retained.

A folder counts when it has its final name, which it gets last, a manifest that can be read, and an
archive of the size that stands there. Everything that is being made or removed has a name that
begins with a dot. Which one is newer is the order in which they were made, and not their dates: a
clock may have run ahead, or been set back.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from recovery.components.chromadb.snapshots import manifest
from recovery.components.chromadb.snapshots.manifest import Manifest, NoManifest
from recovery.errors import NoSnapshot, NotCopied, SnapshotDamaged
from recovery.version import __version__

MAKING = ".making-"
REMOVING = ".removing-"
ATTEMPT = ".attempt"
FREE_SHARE = 0.05
"""The part of a disk that is never filled: the host needs it to live."""
MOST_AHEAD = timedelta(minutes=1)
"""A date that lies further ahead says nothing; a clock may be put right by less at any time."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """``directory`` holds the snapshots of one target, and nothing else."""

    directory: Path

    def snapshots(self) -> list[Manifest]:
        """Those that can be gone back to, the one that was made last first."""
        return [one for one in self._described() if self._fault(one) is None]

    def damaged(self) -> dict[str, str]:
        """What looks like a snapshot and is none any more: its name, and why."""
        found = {}
        for folder in self._folders():
            try:
                one = _read(folder)
            except NoManifest as error:
                found[folder.name] = str(error)
            else:
                if (fault := self._fault(one)) is not None:
                    found[folder.name] = fault
        return found

    def find(self, name: str) -> Manifest:
        """Raises ``NoSnapshot``, and ``SnapshotDamaged`` where it is there and of no use."""
        if (fault := self.damaged().get(name)) is not None:
            raise SnapshotDamaged(f"snapshot {name}: {fault}", {"snapshot": name})
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
        """Write the manifest and give the folder its name; from then on it counts, as the newest.

        Call it with the target's lock held: it gets the next number.
        """
        last = max((one.sequence for one in self._described()), default=0)
        made = made.model_copy(update={"sequence": last + 1, "written_by": __version__})
        try:
            _write(place / manifest.FILE, made.model_dump_json(indent=1))
            _sync(place)
            place.rename(self.directory / made.name)
            _sync(self.directory)
        except OSError as error:
            raise NotCopied(f"{place} cannot be finished: {error.strerror}") from error

    def retain(self, keep: int, note: Callable[[str], object]) -> None:
        """Remove what is older than the newest ``keep``, and say so; and what is damaged.

        Those that are damaged are none of these, and go with the good ones of their age. The newest
        good one of either kind always stays: a directory cannot go back to an export.
        """
        gone = self._past(keep)
        for name in gone:
            (self.directory / name).rename(self.directory / f"{REMOVING}{name}")
        self.sweep()
        if gone:
            note(f"past retention and removed: {', '.join(gone)}")
        for name, fault in sorted(self.damaged().items()):
            note(f"of no use: snapshot {name}: {fault}")

    def _past(self, keep: int) -> list[str]:
        good = self.snapshots()
        if len(good) < keep:
            return []
        newest = {one.is_export: one.name for one in reversed(good)}
        known = [one.name for one in self._described()]
        older = known[known.index(good[keep - 1].name) + 1 :]
        return [name for name in older if name not in newest.values()]

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
        """Seconds since the newest was taken; None where nobody knows."""
        known = self.snapshots()
        return age(known[0].taken_at, now) if known else None

    def note_attempt(self) -> None:
        """Raises ``NotCopied``."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            (self.directory / ATTEMPT).write_text("")
        except OSError as error:
            raise NotCopied(f"{self.directory} cannot be written: {error.strerror}") from error

    def forget_attempt(self) -> None:
        """Nothing was begun: the next may come at once."""
        (self.directory / ATTEMPT).unlink(missing_ok=True)

    def tried_ago(self, now: datetime) -> float | None:
        """Seconds since one was last begun, whatever became of it; None where nobody knows."""
        try:
            tried = (self.directory / ATTEMPT).stat().st_mtime
        except FileNotFoundError:
            return None
        return age(datetime.fromtimestamp(tried, UTC), now)

    def _described(self) -> list[Manifest]:
        """Every manifest that can be read, the last one made first.

        Those without a number are from before there were any, and have nothing but their dates.
        """
        now = datetime.now(UTC)
        found = []
        for folder in self._folders():
            with suppress(NoManifest):
                found.append(_read(folder))
        return sorted(
            found,
            key=lambda one: (
                one.sequence,
                age(one.taken_at, now) is not None,
                one.taken_at,
                one.name,
            ),
            reverse=True,
        )

    def _fault(self, one: Manifest) -> str | None:
        """What a look at the archive from outside tells; digests are compared when it is used."""
        try:
            size = self.archive(one.name).lstat().st_size
        except OSError as error:
            return f"its {manifest.ARCHIVE} is not there: {error.strerror}"
        if size != one.archive_bytes:
            return f"its {manifest.ARCHIVE} has {size} of {one.archive_bytes} bytes"
        return None

    def _folders(self) -> Iterator[Path]:
        if self.directory.is_dir():
            for entry in os.scandir(self.directory):
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                    yield Path(entry.path)


def _read(folder: Path) -> Manifest:
    """Raises ``NoManifest``."""
    found = manifest.read(folder / manifest.FILE)
    if found.name != folder.name:
        raise NoManifest(f"its {manifest.FILE} is that of {found.name}")
    return found


def age(taken_at: datetime, now: datetime) -> float | None:
    """Seconds; None where the date lies ahead, since a clock was wrong then, or is now."""
    if taken_at - now > MOST_AHEAD:
        return None
    return max((now - taken_at).total_seconds(), 0.0)


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

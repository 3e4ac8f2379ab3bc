"""What destructive remedies put aside before they delete or replace, on this host's disk.

One folder a recovery, private to it, with the files of the remedy and ``kept.json``, which says
what they are and until when. The disk is the truth; what the control plane knows of it is told
from here and can always be told again. Whoever works in a folder holds a lock on it, which dies
with its process.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from recovery.errors import NothingKept, NotKept

MANIFEST = "kept.json"
BESIDE = "lies_beside"
"""The fact that says what is kept beside the folder; see ``recovery.strategy.Kept``."""
FREE_SHARE = 0.05
"""The part of a disk that is never filled: the host needs it to live."""

LOCK_SECONDS = 5.0
"""How long a folder that another process works in is waited for."""

_TRASH = ".discarded-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@+-]{0,127}")
_POLL_SECONDS = 0.02


class KeptState(StrEnum):
    AVAILABLE = "available"
    UNDONE = "undone"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptEntry:
    """What everybody may know of one folder. Times: epoch ms of the control plane's clock.

    ``bytes`` is None where a part of it lies on a server that does not say how much it is.
    """

    recovery_id: str
    target: str
    strategy: str
    summary: str
    host: str
    bytes: int | None
    kept_ms: int
    expires_ms: int
    state: KeptState = KeptState.AVAILABLE
    undone_by: str | None = None

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        return cls(**{**plain, "state": KeptState(plain["state"])})


@dataclass(slots=True, kw_only=True)
class KeptFolder:
    """One recovery's folder, locked for whoever has it; see ``recovery.strategy.Kept``."""

    recovery_id: str
    folder: Path
    target: str
    strategy: str
    kept_ms: int
    expires_ms: int
    shelf: Shelf
    lock: int
    summary: str = ""
    state: KeptState = KeptState.AVAILABLE
    undone_by: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def store(self, summary: str, **facts: Any) -> None:
        if self.summary and not summary:
            # Everybody was told of what is not kept after all.
            self.shelf.tell(replace(self.entry(), state=KeptState.DISCARDED, bytes=0))
        self.summary = summary
        self.facts = {**self.facts, **facts}
        self._write()

    def room(self) -> int:
        return self.shelf.room()

    def mark(self, state: KeptState, undone_by: str | None = None) -> None:
        """Write down that it was undone or discarded; raises ``NothingKept``."""
        self.state, self.undone_by = state, undone_by or self.undone_by
        self._write()

    def entry(self) -> KeptEntry:
        return KeptEntry(
            recovery_id=self.recovery_id,
            target=self.target,
            strategy=self.strategy,
            summary=self.summary,
            host=self.shelf.host,
            bytes=0 if self.state is KeptState.DISCARDED else self._bytes(),
            kept_ms=self.kept_ms,
            expires_ms=self.expires_ms,
            state=self.state,
            undone_by=self.undone_by,
        )

    def close(self) -> None:
        """Give the lock back; a folder in which nothing was stored is removed."""
        if not self.summary:
            # What cannot be removed stays, empty, and goes when its retention ends.
            with suppress(OSError):
                if {path.name for path in self.folder.iterdir()} <= {MANIFEST}:
                    (self.folder / MANIFEST).unlink(missing_ok=True)
                    self.folder.rmdir()
        os.close(self.lock)

    def _bytes(self) -> int | None:
        beside = self.facts.get(BESIDE, ())
        if beside is None:
            return None
        return size_of(self.folder) + sum(size_of(Path(place)) for place in beside)

    def _write(self) -> None:
        manifest = {
            "recovery_id": self.recovery_id,
            "target": self.target,
            "strategy": self.strategy,
            "summary": self.summary,
            "kept_ms": self.kept_ms,
            "expires_ms": self.expires_ms,
            "state": self.state.value,
            "undone_by": self.undone_by,
            "facts": self.facts,
        }
        write_durably(self.folder / MANIFEST, json.dumps(manifest, indent=1))
        if self.summary:
            self.shelf.tell(self.entry())


def _tell_nobody(_: KeptEntry) -> None:
    """For a shelf that no control plane knows of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """Where this host keeps. ``budget_bytes`` of 0 sets no bound but the disk's own.

    ``tell`` passes on what is known of a folder whenever that changes; it must not raise.
    """

    directory: Path
    host: str = "localhost"
    retention_seconds: float = 7 * 86_400.0
    budget_bytes: int = 0
    tell: Callable[[KeptEntry], None] = _tell_nobody

    def keep(
        self, recovery_id: str, *, target: str = "", strategy: str = "", now_ms: int = 0
    ) -> KeptFolder:
        """A recovery's folder, made or found again; raises ``NothingKept``."""
        if not _NAME.fullmatch(recovery_id):
            raise NothingKept(f"the id {recovery_id[:80]!r} cannot name a folder")
        path = self.directory / recovery_id
        try:
            lock = _lock(path, LOCK_SECONDS, make=True)
        except OSError as error:
            raise NothingKept(f"nothing can be put aside in {path}: {error}") from error
        if lock is None:
            raise NothingKept(f"another process of this host still works in {path}")
        found = self._read(path, lock)
        if found is not None:
            return found
        kept = KeptFolder(
            recovery_id=recovery_id,
            folder=path,
            target=target,
            strategy=strategy,
            kept_ms=now_ms,
            expires_ms=now_ms + int(self.retention_seconds * 1000),
            shelf=self,
            lock=lock,
        )
        try:
            kept.mark(KeptState.AVAILABLE)
        except NothingKept:
            # Whoever asks again when the disk has room must not find it locked by us.
            os.close(lock)
            raise
        return kept

    def open(self, recovery_id: str, *, patience: float = LOCK_SECONDS) -> KeptFolder:
        """A folder that is there; raises ``NotKept`` where it is not, or is in other hands, and
        ``NothingKept`` where its manifest cannot be read."""
        path = self.directory / recovery_id
        if not _NAME.fullmatch(recovery_id) or not path.is_dir():
            raise NotKept(f"nothing of recovery {recovery_id[:80]} is kept on {self.host}")
        try:
            lock = _lock(path, patience)
        except OSError as error:
            raise NotKept(f"{path} cannot be opened: {error}") from error
        if lock is None:
            raise NotKept(f"another process of {self.host} works in {path}")
        found = self._read(path, lock)
        if found is None:
            with suppress(OSError):
                path.rmdir()
            os.close(lock)
            raise NotKept(f"nothing of recovery {recovery_id} was stored on {self.host}")
        return found

    def room(self) -> int:
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            disk = shutil.disk_usage(self.directory)
        except OSError as error:
            raise NothingKept(f"nothing can be put aside in {self.directory}: {error}") from error
        free = disk.free - int(disk.total * FREE_SHARE)
        if self.budget_bytes:
            free = min(free, self.budget_bytes - size_of(self.directory))
        return max(free, 0)

    def ids(self) -> tuple[str, ...]:
        if not self.directory.is_dir():
            return ()
        names = (path.name for path in self.directory.iterdir() if path.is_dir())
        return tuple(sorted(name for name in names if _NAME.fullmatch(name)))

    def discard(self, kept: KeptFolder) -> None:
        """Remove a folder for good; killed anywhere, ``sweep_trash`` does the rest."""
        kept.mark(KeptState.DISCARDED)
        kept.folder.rename(self.directory / f"{_TRASH}{kept.recovery_id}")
        self.sweep_trash()

    def sweep_trash(self) -> None:
        if self.directory.is_dir():
            for path in self.directory.glob(f"{_TRASH}*"):
                shutil.rmtree(path, ignore_errors=True)

    def _read(self, path: Path, lock: int) -> KeptFolder | None:
        try:
            plain = json.loads((path / MANIFEST).read_text())
            return KeptFolder(
                recovery_id=path.name,
                folder=path,
                target=plain["target"],
                strategy=plain["strategy"],
                kept_ms=plain["kept_ms"],
                expires_ms=plain["expires_ms"],
                shelf=self,
                lock=lock,
                summary=plain["summary"],
                state=KeptState(plain["state"]),
                undone_by=plain["undone_by"],
                facts=plain["facts"],
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError) as error:
            os.close(lock)
            raise NothingKept(f"{path / MANIFEST} cannot be read: {error}") from error


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder; what vanishes, or is hidden, counts nothing."""
    return sum(_sizes(folder))


def _sizes(folder: Path) -> Iterator[int]:
    for base, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.lstat(Path(base) / name).st_size
            except OSError:
                continue


def _lock(path: Path, patience: float, *, make: bool = False) -> int | None:
    """A descriptor that holds the folder's lock until it is closed; None where another has it."""
    deadline = time.monotonic() + patience
    while True:
        if make and not path.is_dir():
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            _sync_folder(path.parent)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            if time.monotonic() >= deadline:
                return None
            time.sleep(_POLL_SECONDS)
            continue
        # Whoever had it before may have removed the folder, and another made it anew.
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, text: str) -> None:
    """Replace a file in one step that survives a crash; raises ``NothingKept``."""
    draft = path.with_name(f"{path.name}.draft")
    try:
        with draft.open("w") as sink:
            sink.write(text)
            sink.flush()
            os.fsync(sink.fileno())
        draft.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise NothingKept(f"cannot write {path}: {error}") from error

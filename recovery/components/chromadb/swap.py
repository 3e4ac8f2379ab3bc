"""One directory in the place of another, in one step, and back again.

Both lie side by side on one filesystem and change names; nothing is copied. A note beside them,
written before the first step, says which directory is which by its inode. So whoever comes after a
killed process sees where it was, and goes on or goes back. It knows nothing of Chroma and of
servers: whoever has a directory open must be stopped by the caller.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from recovery.errors import NotReplaceable, OwnerChanged

_AT_FDCWD = -100
_EXCHANGE = 2
_UNSUPPORTED = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})


class Place(StrEnum):
    """Which of the two has the name."""

    OLD = "old"
    NEW = "new"
    NEITHER = "neither"
    """For the moment between two renames, where the filesystem cannot exchange names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """``path`` is the name that both want, ``staged`` where the new one waits, ``aside`` where the
    old one goes. ``old`` and ``new`` are inodes; ``old`` is None where there was nothing.
    ``is_back`` says that it goes back.
    """

    recovery_id: str
    path: str
    staged: str
    aside: str
    old: int | None
    new: int
    is_back: bool = False

    @classmethod
    def begin(cls, path: Path, staged: Path, aside: Path, recovery_id: str) -> Swap:
        """Write down which is which. Raises ``NotReplaceable`` where ``path`` cannot be renamed."""
        refuse_unless_replaceable(path)
        swap = cls(
            recovery_id=recovery_id,
            path=str(path),
            staged=str(staged),
            aside=str(aside),
            old=_inode(path),
            new=staged.lstat().st_ino,
        )
        swap.write()
        return swap

    @classmethod
    def done(cls, path: Path, staged: Path, aside: Path, recovery_id: str) -> Swap:
        """One that was ended with the old directory aside, to be gone back from."""
        return cls(
            recovery_id=recovery_id,
            path=str(path),
            staged=str(staged),
            aside=str(aside),
            old=aside.lstat().st_ino,
            new=path.lstat().st_ino,
        )

    @classmethod
    def find(cls, path: Path) -> Self | None:
        """The swap that somebody began and did not end."""
        try:
            return cls(**json.loads(_note(path).read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise NotReplaceable(f"{_note(path)} cannot be read: {error}") from error

    def place(self) -> Place:
        """Raises ``OwnerChanged`` where the name belongs to a third."""
        found = _inode(Path(self.path))
        if found == self.new:
            return Place.NEW
        if found == self.old:
            # Where there was nothing, nothing is there.
            return Place.OLD
        if found is None:
            return Place.NEITHER
        raise OwnerChanged(
            f"{self.path} is neither the directory from before nor the new one; they are"
            f" {self.aside} and {self.staged}"
        )

    def forward(self) -> None:
        """The new one has the name, the old one is aside; from wherever it stands."""
        with _named(self.path):
            if self.place() is Place.OLD and self.old is not None:
                self._exchange(self.path, self.staged, aside=self.aside)
            if self.place() is not Place.NEW:
                self._move(self.staged, self.path)
            if self.old is not None and _inode(Path(self.staged)) == self.old:
                self._move(self.staged, self.aside)

    def back(self) -> Swap:
        """The old one has the name again, the new one is staged; from wherever it stands."""
        going = replace(self, is_back=True)
        going.write()
        with _named(self.path):
            if self.place() is Place.NEW:
                if self.old is None:
                    self._move(self.path, self.staged)
                else:
                    self._exchange(self.path, self._old_place(), aside=self.staged)
            if self.place() is Place.NEITHER and self.old is not None:
                self._move(self._old_place(), self.path)
            if _inode(Path(self.aside)) == self.new:
                self._move(self.aside, self.staged)
        return going

    def end(self) -> None:
        """Nothing is left to be done by whoever comes after."""
        note = _note(Path(self.path))
        note.unlink(missing_ok=True)
        _sync(note.parent)

    def _old_place(self) -> str:
        return self.aside if _inode(Path(self.aside)) == self.old else self.staged

    def _exchange(self, one: str, other: str, *, aside: str) -> None:
        """At once where the filesystem can; else the one makes room first."""
        if _exchange_names(one, other):
            _sync(Path(self.path).parent)
            return
        spare = aside if aside != other else f"{other}.tmp"
        self._move(one, spare)
        self._move(other, one)

    def _move(self, source: str, target: str) -> None:
        os.rename(source, target)  # noqa: PTH104 - beside the exchange, which pathlib lacks
        _sync(Path(self.path).parent)

    def write(self) -> None:
        """Replace the note beside the directories; on the disk before it returns."""
        note = _note(Path(self.path))
        draft = note.with_name(f"{note.name}.draft")
        with _named(str(note)):
            with draft.open("w") as sink:
                sink.write(json.dumps(asdict(self)))
                sink.flush()
                os.fsync(sink.fileno())
            draft.replace(note)
            _sync(note.parent)


def refuse_unless_replaceable(path: Path) -> None:
    """Raises ``NotReplaceable``: a mount point or a symlink has no name that we could give away."""
    if path.is_symlink():
        raise NotReplaceable(f"{path} is a symlink: the policy must name the directory itself")
    if path.exists() and not path.is_dir():
        raise NotReplaceable(f"{path} is no directory")
    if path.is_mount():
        raise NotReplaceable(
            f"{path} is a mount point, which cannot be renamed: use a directory below it"
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise NotReplaceable(f"nothing in {path.parent} may be renamed by this user")


def beside(path: Path, recovery_id: str, kind: str) -> Path:
    """A hidden neighbour of a directory, named after what made it."""
    return path.with_name(f".{path.name}.recovery-{recovery_id}.{kind}")


def remove(folder: Path) -> None:
    """Remove a neighbour for good; raises ``NotReplaceable`` where it cannot be."""
    with _named(str(folder)):
        if folder.exists():
            shutil.rmtree(folder)


def _note(path: Path) -> Path:
    return path.with_name(f".{path.name}.recovery.json")


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return None


def _exchange_names(one: str, other: str) -> bool:
    """False where this system or filesystem cannot."""
    call: Any = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), one)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotReplaceable(f"{error.filename or what}: {error.strerror}") from error

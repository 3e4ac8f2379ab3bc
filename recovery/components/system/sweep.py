"""Removing old files below the roots of one filesystem until it is well again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Self

from recovery.components.system import open_files
from recovery.components.system.filesystems import Usage
from recovery.components.system.folders import Root, Unsafe, is_regular, reached, walk
from recovery.components.system.manifest import Manifest
from recovery.components.system.survey import BLOCK, Age, Best, Measure, Shortage, survey
from recovery.components.system.target import HostThresholds

SURVEY_SHARE = 3
"""A survey may take one part in so many of the time that is left."""

_ANNOUNCED = 64
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Changed(Exception):
    """A file is not the one any more that was looked at."""


@dataclass(slots=True)
class Freed:
    """What was removed below one root. Bytes are those of last names: they are free now."""

    files: int = 0
    bytes: int = 0

    def __iadd__(self, other: Freed) -> Self:
        self.files += other.files
        self.bytes += other.bytes
        return self


@dataclass(slots=True, kw_only=True)
class Sweep:
    """``roots`` lie on one filesystem. ``remaining`` raises when the strategy's time is over."""

    roots: Sequence[Root]
    limits: HostThresholds
    age: Age
    manifest: Manifest
    remaining: Callable[[], float]
    freed: list[Freed] = field(init=False)
    held: open_files.ByProcesses = field(default_factory=open_files.ByProcesses)
    _missing: int = 0
    _measure: Measure = field(init=False)

    def __post_init__(self) -> None:
        self.freed = [Freed() for _ in self.roots]
        self._measure = Measure(age=self.age)

    def shortage(self) -> Shortage:
        return Shortage.of(Usage.of(self.roots[0].descriptor), self.limits)

    def run(self) -> None:
        """Remove the largest and oldest first, and nothing more once enough is free.

        Room first, then inodes. Raises ``DeadlineExceeded``.
        """
        try:
            for of_inodes in (False, True):
                self._measure = Measure(age=self.age, of_inodes=of_inodes)
                self._missing = 0
                if self._is_short():
                    self._relieve()
        finally:
            self.manifest.write()

    def _relieve(self) -> None:
        ends = time.monotonic() + self.remaining() / SURVEY_SHARE
        found = survey(self.roots, self._measure, ends, self.remaining)
        self._remove_best(found.in_order())
        if found.is_whole and not found.rest:
            return
        least = found.least_worth(self._missing)
        # What was counted on may be in use: then everything else is needed too.
        for worth in dict.fromkeys((least, 1)):
            for number, root in enumerate(self.roots):
                if self._is_short():
                    self._remove_rest(number, root, worth)

    def _is_short(self) -> bool:
        """Ask the filesystem itself; what was freed is only counted in between."""
        if self._missing <= 0:
            shortage = self.shortage()
            self._missing = shortage.inodes if self._measure.of_inodes else shortage.bytes
        return self._missing > 0

    def _remove_best(self, best: Iterable[Best]) -> None:
        waiting = iter(best)
        while self._is_short() and (some := list(islice(waiting, _ANNOUNCED))):
            self.remaining()
            self.manifest.announce(
                [(self._path(each.root, each.where, each.name), each.status) for each in some]
            )
            for each in some:
                root = self.roots[each.root]
                try:
                    with reached(root, each.where) as folder:
                        gone = self._remove(each.root, folder, each.name, each.status)
                except (OSError, Unsafe) as error:
                    root.skip(str(error) if isinstance(error, Unsafe) else error.strerror or "?")
                    gone = False
                if not gone:
                    self.manifest.spare(self._path(each.root, each.where, each.name))

    def _remove_rest(self, number: int, root: Root, least: int) -> None:
        for batch in walk(root, self._is_worth(least), self.remaining):
            self.remaining()
            named = [(self._path(number, batch.where, name), s) for name, s in batch.files]
            self.manifest.announce(named)
            for (name, status), (path, _) in zip(batch.files, named, strict=True):
                if not self._remove(number, batch.folder, name, status):
                    self.manifest.spare(path)
            if not self._is_short():
                return

    def _is_worth(self, least: int) -> Callable[[os.stat_result], bool]:
        is_old, measure = self.age.is_old, self._measure
        if least <= 1:
            return lambda status: is_old(status) and measure.gain(status) > 0
        return lambda status: is_old(status) and measure.worth(status) >= least

    def _remove(self, number: int, folder: int, name: str, seen: os.stat_result) -> bool:
        """Whether the file is gone by our hand; nothing is touched once enough is free."""
        if self._missing <= 0 and not self._is_short():
            return False
        root, freed = self.roots[number], self.freed[number]
        try:
            last = remove(folder, name, seen, self.age, self.held)
        except open_files.InUse as reason:
            root.skip(str(reason))
        except Changed:
            root.skip("changed meanwhile")
        except OSError as error:
            root.skip(error.strerror or "cannot be removed")
        else:
            freed.files += 1
            freed.bytes += last.st_blocks * BLOCK if last.st_nlink == 1 else 0
            if last.st_nlink == 1:
                self._missing -= self._measure.gain(last)
            return True
        return False

    def _path(self, number: int, where: Sequence[str], name: str) -> str:
        return "/".join((self.roots[number].path.rstrip("/"), *where, name))


def remove(
    folder: int, name: str, seen: os.stat_result, age: Age, held: open_files.ByProcesses
) -> os.stat_result:
    """Remove one old file that nobody has open; its status just before is returned.

    Raises ``InUse``, ``Changed`` where the name means something else by now, and ``OSError``.
    """
    descriptor = os.open(name, _OPEN, dir_fd=folder)
    try:
        open_files.claim(descriptor, held)
        status = os.fstat(descriptor)
        if not is_regular(status) or not age.is_old(status) or not _is_same(status, seen):
            raise Changed
        if status.st_nlink > 1:
            _unlink(folder, name, status)
            age.lost_a_name(os.fstat(descriptor))
            return status
    finally:
        os.close(descriptor)
    # Closed before, because a filesystem has more to do for a file that is open while it goes.
    _unlink(folder, name, status)
    return status


def _unlink(folder: int, name: str, status: os.stat_result) -> None:
    if not _is_same(os.stat(name, dir_fd=folder, follow_symlinks=False), status):
        raise Changed
    os.unlink(name, dir_fd=folder)


def _is_same(one: os.stat_result, other: os.stat_result) -> bool:
    return one.st_ino == other.st_ino and one.st_dev == other.st_dev

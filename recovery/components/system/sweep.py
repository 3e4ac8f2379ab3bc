"""Removing old files below the roots of one filesystem until it is well again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Self

from recovery.components.system import open_files
from recovery.components.system.filesystems import Usage
from recovery.components.system.folders import Root, Unsafe, is_regular, reached, walk
from recovery.components.system.manifest import Manifest
from recovery.components.system.seen import Group, Seen
from recovery.components.system.survey import (
    BLOCK,
    Age,
    Best,
    Measure,
    Shortage,
    Survey,
    survey,
)
from recovery.components.system.target import HostThresholds

SURVEY_SHARE = 3
"""A survey may take one part in so many of the time that is left."""

_ANNOUNCED = 64
_ANNOUNCED_OF_REST = 256
_MOST_BITS = 256
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
            with open_files.no_signal_of_leases():
                self._run()
        finally:
            self.manifest.write()

    def _run(self) -> None:
        for of_inodes in (False, True):
            self._measure = Measure(age=self.age, of_inodes=of_inodes)
            self._missing = 0
            if self._is_short():
                self._relieve()

    def _relieve(self) -> None:
        ends = time.monotonic() + self.remaining() / SURVEY_SHARE
        found = survey(self.roots, self._measure, ends, self.remaining)
        self._remove_best(found.in_order())
        least = found.least_bits(self._missing)
        self._remove_rest(found, range(least, _MOST_BITS))
        # What was counted on may be in use: then everything else is needed too.
        self._remove_rest(found, range(1, least))

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
            for each in some:
                self.manifest.announce(self._folder(each.root, each.where), [each.seen])
            self.manifest.write()
            for each in some:
                self._reach_and_remove(each.root, each.where, [each.seen])

    def _remove_rest(self, found: Survey, bits: range) -> None:
        """What the survey remembers; where that is not all, whatever a new walk finds."""
        for some in _together(found.rest.groups, bits):
            if not self._is_short():
                return
            self.remaining()
            for group, files in some:
                self.manifest.announce(self._folder(group.root, group.where), files)
            self.manifest.write()
            for group, files in some:
                self._reach_and_remove(group.root, group.where, files)
        if bits and not (found.is_whole and found.rest.is_whole):
            for number, root in enumerate(self.roots):
                if self._is_short():
                    self._walk_and_remove(number, root, bits.start)

    def _walk_and_remove(self, number: int, root: Root, bits: int) -> None:
        for batch in walk(root, self._is_worth(bits), self.remaining):
            self.remaining()
            files = [
                Seen(name, status.st_ino, status.st_size, int(status.st_mtime), bits)
                for name, status in batch.files
            ]
            self.manifest.announce(self._folder(number, batch.where), files)
            self.manifest.write()
            self._remove_all(number, batch.folder, batch.where, files)
            if not self._is_short():
                return

    def _is_worth(self, bits: int) -> Callable[[os.stat_result], bool]:
        is_old, measure, least = self.age.is_old, self._measure, 1 << (bits - 1)
        if bits <= 1:
            return lambda status: is_old(status) and measure.gain(status) > 0
        return lambda status: (
            is_old(status) and measure.worth(status, measure.gain(status)) >= least
        )

    def _reach_and_remove(self, number: int, where: Sequence[str], files: Sequence[Seen]) -> None:
        root = self.roots[number]
        try:
            with reached(root, where) as folder:
                self._remove_all(number, folder, where, files)
        except (OSError, Unsafe) as error:
            root.skip(str(error) if isinstance(error, Unsafe) else error.strerror or "?")
            self._spare(number, where, files)

    def _remove_all(
        self, number: int, folder: int, where: Sequence[str], files: Sequence[Seen]
    ) -> None:
        left = [seen for seen in files if not self._remove(number, folder, seen)]
        self._spare(number, where, left)

    def _spare(self, number: int, where: Sequence[str], files: Sequence[Seen]) -> None:
        self.manifest.spare(self._folder(number, where), [seen.name for seen in files])

    def _remove(self, number: int, folder: int, seen: Seen) -> bool:
        """Whether the file is gone by our hand; nothing is touched once enough is free."""
        if self._missing <= 0 and not self._is_short():
            return False
        root, freed = self.roots[number], self.freed[number]
        try:
            last = remove(folder, seen.name, seen.inode, self.age, self.held)
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

    def _folder(self, number: int, where: Sequence[str]) -> str:
        return "/".join((self.roots[number].path.rstrip("/"), *where))


def _together(groups: Iterable[Group], bits: range) -> Iterator[list[tuple[Group, list[Seen]]]]:
    """Groups with files of such a worth, as many as are announced at a time."""
    some, files = list[tuple[Group, list[Seen]]](), 0
    for group in groups:
        wanted = [seen for seen in group if seen.bits in bits]
        if wanted:
            some.append((group, wanted))
            files += len(wanted)
        if files >= _ANNOUNCED_OF_REST:
            yield some
            some, files = [], 0
    if some:
        yield some


def remove(
    folder: int, name: str, inode: int, age: Age, held: open_files.ByProcesses
) -> os.stat_result:
    """Remove one old file that nobody has open; its status just before is returned.

    ``inode``: of the file that was looked at. Raises ``InUse``, ``Changed`` where the name means
    something else by now, and ``OSError``.
    """
    descriptor = os.open(name, _OPEN, dir_fd=folder)
    try:
        open_files.claim(descriptor, held)
    finally:
        # Closed before, because a filesystem has more to do for a file that is open while it goes.
        os.close(descriptor)
    # Of the name, last of all: whoever put another file in its place since it was opened, and this
    # one back, has changed it by that.
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if status.st_ino != inode or not is_regular(status) or not age.is_old(status):
        raise Changed
    if status.st_nlink > 1:
        _remove_a_name(folder, name, age)
    else:
        os.unlink(name, dir_fd=folder)
    return status


def _remove_a_name(folder: int, name: str, age: Age) -> None:
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.unlink(name, dir_fd=folder)
        age.lost_a_name(os.fstat(descriptor))
    finally:
        os.close(descriptor)

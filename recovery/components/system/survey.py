"""What could be removed on one filesystem, and which of it first. Removes nothing."""

from __future__ import annotations

import heapq
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from recovery.components.system.filesystems import Usage
from recovery.components.system.folders import Identity, Root, walk
from recovery.components.system.target import HostThresholds

MOST_BEST = 1024
"""Files that are known by name and go in exact order; the rest goes by classes of worth."""

MOST_BY_US = 10_000
BLOCK = 512
"""Bytes of one ``st_blocks``, whatever the filesystem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """Bytes and inodes that are missing to be well again; 0 where there is enough."""

    bytes: int
    inodes: int

    @classmethod
    def of(cls, usage: Usage, limits: HostThresholds) -> Shortage:
        return cls(
            bytes=_missing(usage.used, usage.total, limits.disk.healthy),
            inodes=_missing(usage.inodes_used, usage.inodes, limits.inode_usage_percent.healthy),
        )

    def __bool__(self) -> bool:
        return self.bytes > 0 or self.inodes > 0


def _missing(used: int, total: int, healthy_percent: float) -> int:
    """How much must go until less than the healthy share is used."""
    if total == 0 or 100 * used / total < healthy_percent:
        return 0
    return used - int(total * healthy_percent / 100) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Age:
    """Old is what nobody wrote or changed in any other way for ``seconds``.

    ``by_us``: when we changed a file by removing one of its names, which makes it no younger.
    """

    seconds: float
    now: float = field(default_factory=time.time)
    by_us: dict[Identity, int] = field(default_factory=dict)

    def is_old(self, status: os.stat_result) -> bool:
        before = self.now - self.seconds
        # The first answers for most files, and this is asked of every file there is.
        return status.st_mtime < before and (status.st_ctime < before or self._is_by_us(status))

    def of(self, status: os.stat_result) -> float:
        changed = status.st_ctime
        if changed > status.st_mtime and not self._is_by_us(status):
            return self.now - changed
        return self.now - status.st_mtime

    def lost_a_name(self, status: os.stat_result) -> None:
        """``status`` as it is after we removed a name of several."""
        if len(self.by_us) < MOST_BY_US:
            self.by_us[status.st_dev, status.st_ino] = status.st_ctime_ns

    def _is_by_us(self, status: os.stat_result) -> bool:
        return bool(self.by_us) and (
            self.by_us.get((status.st_dev, status.st_ino)) == status.st_ctime_ns
        )


@dataclass(frozen=True, slots=True)
class Best:
    """A file by the names that lead to it; ``root`` is its place among the roots."""

    worth: int
    gain: int
    root: int
    where: tuple[str, ...]
    name: str
    status: os.stat_result

    def __lt__(self, other: Best) -> bool:
        return self.worth < other.worth


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What is short, and so what a file is worth: room by default, else inodes."""

    age: Age
    of_inodes: bool = False

    def gain(self, status: os.stat_result) -> int:
        """Bytes, or inodes. Of a file with several names each has its share."""
        if self.of_inodes:
            return int(status.st_nlink == 1)
        return status.st_blocks * BLOCK // status.st_nlink

    def worth(self, status: os.stat_result) -> int:
        """The largest and oldest are worth most: gain times milliseconds of age."""
        return int(self.gain(status) * self.age.of(status) * 1000)


@dataclass(slots=True)
class Survey:
    """The best files by name; the rest as gains, by the length of their worth in bits.

    Memory is flat: so many files by name, and one counter a class.
    """

    best: list[Best] = field(default_factory=list)
    rest: Counter[int] = field(default_factory=Counter)
    files: int = 0
    gain: int = 0
    is_whole: bool = True

    def add(self, found: Best) -> None:
        self.files += 1
        self.gain += found.gain
        if len(self.best) < MOST_BEST:
            heapq.heappush(self.best, found)
        else:
            out = heapq.heappushpop(self.best, found)
            self.rest[out.worth.bit_length()] += out.gain

    def in_order(self) -> list[Best]:
        """The largest and oldest first."""
        return sorted(self.best, key=lambda each: -each.worth)

    def least_worth(self, missing: int) -> int:
        """From which worth on the rest suffices for what is missing."""
        if self.is_whole:
            for bits in sorted(self.rest, reverse=True):
                missing -= self.rest[bits]
                if missing <= 0:
                    return int(2 ** (bits - 1))
        return 1


def survey(
    roots: Sequence[Root], measure: Measure, ends: float, tick: Callable[[], object]
) -> Survey:
    """Look at every old file below the roots, until the monotonic clock says ``ends``."""
    found = Survey()
    for number, root in enumerate(roots):
        for batch in walk(root, measure.age.is_old, tick):
            for name, status in batch.files:
                worth = measure.worth(status)
                if worth > 0:
                    gain = measure.gain(status)
                    found.add(Best(worth, gain, number, batch.where, name, status))
            if time.monotonic() > ends:
                found.is_whole = False
                return found
    return found

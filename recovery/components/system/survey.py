"""What could be removed on one filesystem, and which of it first. Removes nothing."""

from __future__ import annotations

import heapq
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from recovery.components.system.filesystems import Usage
from recovery.components.system.folders import Batch, Identity, Root, walk
from recovery.components.system.seen import Group, Memory, Seen
from recovery.components.system.target import HostThresholds

MOST_BEST = 1024
"""Files that are known by name and go in exact order; the rest goes by classes of worth."""

MOST_OUTDONE = 5_000
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

    def is_unwritten(self, status: os.stat_result) -> bool:
        """Whether nobody wrote it, whatever else was changed."""
        return status.st_mtime < self.now - self.seconds

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
    seen: Seen

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

    def worth(self, status: os.stat_result, gain: int) -> int:
        """The largest and oldest are worth most: gain times milliseconds of age."""
        return int(gain * self.age.of(status) * 1000)


@dataclass(slots=True)
class Survey:
    """The best files by name; the rest as gains, by the length of their worth in bits.

    Memory is flat: so many files by name, one counter a class, and what ``rest`` may take.
    ``is_whole``: everything was looked at.
    """

    best: list[Best] = field(default_factory=list)
    gains: Counter[int] = field(default_factory=Counter)
    rest: Memory = field(default_factory=Memory)
    files: int = 0
    gain: int = 0
    is_whole: bool = True
    _outdone: defaultdict[tuple[int, tuple[str, ...]], list[Seen]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _outdone_files: int = 0

    def add(self, root: int, batch: Batch, measure: Measure) -> None:
        """Old files of one folder."""
        best, out = self.best, []
        for name, status in batch.files:
            gain = measure.gain(status)
            worth = measure.worth(status, gain)
            if worth <= 0:
                continue
            self.files += 1
            self.gain += gain
            bits = worth.bit_length()
            seen = Seen(name, status.st_ino, status.st_size, int(status.st_mtime), bits)
            if len(best) == MOST_BEST and worth <= best[0].worth:
                out.append(seen)
                self.gains[bits] += gain
                continue
            heapq.heappush(best, Best(worth, gain, root, batch.where, seen))
            if len(best) > MOST_BEST:
                self._let_go(heapq.heappop(best))
        if out:
            self.rest.add(Group.of(root, batch.where, out))

    def close(self) -> None:
        """Remember those as well that were among the best for a while."""
        for (root, where), files in self._outdone.items():
            self.rest.add(Group.of(root, where, files))
        self._outdone.clear()

    def _let_go(self, one: Best) -> None:
        self.gains[one.seen.bits] += one.gain
        self._outdone[one.root, one.where].append(one.seen)
        self._outdone_files += 1
        if self._outdone_files % MOST_OUTDONE == 0:
            self.close()

    def in_order(self) -> list[Best]:
        """The largest and oldest first."""
        return sorted(self.best, key=lambda each: -each.worth)

    def least_bits(self, missing: int) -> int:
        """From which length of worth on the rest suffices for what is missing."""
        if self.is_whole:
            for bits in sorted(self.gains, reverse=True):
                missing -= self.gains[bits]
                if missing <= 0:
                    return bits
        return 1


def survey(
    roots: Sequence[Root], measure: Measure, ends: float, tick: Callable[[], object]
) -> Survey:
    """Look at every old file below the roots, until the monotonic clock says ``ends``."""
    found = Survey()
    for number, root in enumerate(roots):
        for batch in walk(root, measure.age.is_old, tick):
            found.add(number, batch, measure)
            if time.monotonic() > ends:
                found.is_whole = False
                found.close()
                return found
        root.young = root.unwanted
    found.close()
    return found

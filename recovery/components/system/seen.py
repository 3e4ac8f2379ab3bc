"""Files that were seen once and may be removed later, in some forty bytes each."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

MOST_BYTES = 6_000_000
"""What is kept of all files together; whoever needs more of them has to look again."""

_GROUP_BYTES = 400
_FILE_BYTES = 4 * 8


class Seen(NamedTuple):
    """A file as it was when it was looked at: bytes, seconds since the epoch, worth in bits."""

    name: str
    inode: int
    size: int
    written: int
    bits: int


@dataclass(frozen=True, slots=True)
class Group:
    """Files of one folder; ``root`` is its place among the roots, ``where`` leads there from it."""

    root: int
    where: tuple[str, ...]
    # Neither a list of names nor numbers as objects: those take ten times as much.
    _names: str
    _inodes: array[int]
    _facts: array[int]

    @classmethod
    def of(cls, root: int, where: tuple[str, ...], files: Iterable[Seen]) -> Group:
        names, inodes, facts = [], array("Q"), array("q")
        for name, inode, *others in files:
            names.append(name)
            inodes.append(inode)
            facts.extend(others)
        return cls(root, where, "/".join(names), inodes, facts)

    def __iter__(self) -> Iterator[Seen]:
        facts = self._facts
        columns = self._names.split("/"), self._inodes, facts[::3], facts[1::3], facts[2::3]
        return map(Seen, *columns)

    @property
    def bytes(self) -> int:
        return _GROUP_BYTES + 2 * len(self._names) + _FILE_BYTES * len(self._inodes)


@dataclass(slots=True)
class Memory:
    """Groups in the order in which they were seen, up to a bound; ``is_whole``: all of them."""

    groups: list[Group] = field(default_factory=list)
    is_whole: bool = True
    _bytes: int = 0

    def add(self, group: Group) -> None:
        self.is_whole = self.is_whole and self._bytes + group.bytes <= MOST_BYTES
        if self.is_whole:
            self.groups.append(group)
            self._bytes += group.bytes

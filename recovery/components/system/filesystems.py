"""How full a filesystem is: bytes and inodes, as ``df`` counts them."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
ELSEWHERE = re.compile(r"nfs\d?|cifs|smb3|ceph|9p|afs|glusterfs|lustre|fuse(\..+)?")
"""Types of filesystems that somebody else answers for, and who may have died."""

ANSWER_SECONDS = 0.5

FOREVER_STUCK: dict[str, threading.Thread] = {}
"""Readings that never came back, by path: a dead network filesystem is not asked twice at once."""


class Unreadable(Exception):
    """A watched filesystem is missing, or does not answer in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Bytes and inodes. ``total`` is without what is reserved for root."""

    used: int
    total: int
    inodes_used: int
    inodes: int

    @classmethod
    def of(cls, path: str | int) -> Usage:
        """Of a path or a descriptor; raises ``OSError``."""
        found = os.statvfs(path)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        return cls(
            used=used,
            total=used + found.f_bavail * found.f_frsize,
            inodes_used=found.f_files - found.f_ffree,
            inodes=found.f_files,
        )

    @property
    def percent(self) -> float:
        return 100 * self.used / self.total if self.total else 0.0

    @property
    def inode_percent(self) -> float:
        """0 where the filesystem makes inodes as it needs them."""
        return 100 * self.inodes_used / self.inodes if self.inodes else 0.0


def read(path: str, timeout: float) -> Usage:
    """Raises ``Unreadable``, after ``timeout`` seconds where nothing answers at all."""
    stuck = FOREVER_STUCK.get(path)
    if stuck is not None and stuck.is_alive():
        raise Unreadable(f"{path} does not answer")
    found: list[Usage | OSError] = []

    def ask() -> None:
        try:
            found.append(Usage.of(path))
        except OSError as error:
            found.append(error)

    asking = threading.Thread(target=ask, daemon=True, name=f"statvfs {path}")
    asking.start()
    asking.join(timeout)
    if not found:
        FOREVER_STUCK[path] = asking
        raise Unreadable(f"{path} does not answer within {timeout:g} s")
    if isinstance(found[0], OSError):
        raise Unreadable(f"{path}: {found[0].strerror}") from found[0]
    return found[0]


def dead() -> tuple[str, ...]:
    """Where filesystems are mounted whose server does not answer: who asks for a file there hangs.

    Each costs half a second once; afterwards it is known by the reading that never came back.
    """
    return tuple(path for path in _mounted_elsewhere() if not _answers(path))


def is_below(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(f"{folder.rstrip('/')}/") for folder in folders)


def _answers(path: str) -> bool:
    try:
        read(path, ANSWER_SECONDS)
    except Unreadable as error:
        # What refuses has answered.
        return error.__cause__ is not None
    return True


def _mounted_elsewhere() -> Iterator[str]:
    for line in MOUNTS.read_text(errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        if ELSEWHERE.fullmatch(after.split(" ", 1)[0]):
            # Spaces and the like are written as octal numbers.
            escaped = before.split(" ")[4]
            yield re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), escaped)

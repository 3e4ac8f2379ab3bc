"""Files that were deleted and are still open: they take room that no path leads to."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from recovery.components.system import open_files
from recovery.components.system.survey import BLOCK


@dataclass(frozen=True, slots=True, kw_only=True)
class Ghost:
    """A deleted file, and one of the descriptors that keep it alive."""

    held: open_files.Held
    bytes: int

    @property
    def path(self) -> str:
        return self.held.path.removesuffix(open_files.DELETED)

    def is_below(self, folders: Collection[str]) -> bool:
        return any(self.path.startswith(f"{folder.rstrip('/')}/") for folder in folders)


def find(devices: Collection[int], tick: Callable[[], object]) -> list[Ghost]:
    """Those on these devices, the largest first, each once however often it is open.

    ``tick`` is called now and then, and may raise.
    """
    found: dict[open_files.Identity, Ghost] = {}
    for held in open_files.descriptors(tick):
        status = held.status
        if status.st_nlink == 0 and status.st_dev in devices and status.st_blocks:
            found.setdefault(held.identity, Ghost(held=held, bytes=status.st_blocks * BLOCK))
    return sorted(found.values(), key=lambda ghost: -ghost.bytes)


def empty(
    ghosts: Collection[Ghost], is_short: Callable[[], bool], remaining: Callable[[], float]
) -> Iterator[Ghost]:
    """Take the content of deleted files, while room is short; yields each that was emptied.

    A file that a process has mapped is left alone: reading what is gone would kill the process.
    """
    unsure: set[int] = set()
    mapped = frozenset(open_files.mapped(hidden=unsure.add))
    inodes = frozenset(inode for pid in unsure for inode in open_files.inodes_mapped_by(pid))
    for ghost in ghosts:
        remaining()
        if not is_short():
            return
        device_and_inode = ghost.held.identity
        if device_and_inode in mapped or device_and_inode[1] in inodes:
            continue
        if _empty(ghost):
            yield ghost


def _empty(ghost: Ghost) -> bool:
    try:
        descriptor = os.open(ghost.held.link, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        # The number may mean another file by now.
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) != ghost.held.identity or status.st_nlink:
            return False
        os.ftruncate(descriptor, 0)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True

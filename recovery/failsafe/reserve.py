"""Some room on the disk of the state directory, given up when that disk is full.

A control Redis whose append-only file lies there takes no write on a full disk, and without it no
cleanup is admitted. What is given up lets it write again, for long enough.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import structlog

FILE = "reserve"
LEAST_FREE = 1024 * 1024
"""Bytes. With less, the next append of anybody may fail."""

TIMES = 4
"""How often the reserve must fit into what is free until it is taken (again)."""

log = structlog.get_logger()


class Reserve:
    """A file of that many bytes, or none where the disk is too small for it."""

    def __init__(self, state_dir: Path, size: int) -> None:
        self._path = state_dir / FILE
        self._size = size

    def tend(self) -> None:
        """Give it up on a full disk, and take it back once there is room."""
        try:
            free = self._free()
            if self._path.exists():
                if free < LEAST_FREE or not self._size:
                    self._path.unlink()
                    log.error("the disk is full: the reserve is given up", path=str(self._path))
            elif self._size and free >= self._size * TIMES:
                self._take()
        except OSError as error:
            log.warning("the reserve cannot be tended", why=error.strerror)

    def _free(self) -> int:
        found = os.statvfs(self._path.parent)
        return found.f_bavail * found.f_frsize

    def _take(self) -> None:
        draft = self._path.with_name(f".{FILE}")
        try:
            with draft.open("wb") as sink:
                os.posix_fallocate(sink.fileno(), 0, self._size)
            draft.replace(self._path)
        finally:
            with suppress(FileNotFoundError):
                draft.unlink()

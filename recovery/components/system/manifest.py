"""The list of what a cleanup removes: path, bytes and time of the last change, a line each.

Each batch is on disk before its first file goes, so that a cleanup that is killed has named all
that it removed. The list cannot bring anything back: what the policy calls disposable is.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from recovery.components.system.seen import Seen
from recovery.errors import NothingKept
from recovery.strategy import Kept

FILE = "removed.jsonl.gz"
MOST_UNWRITTEN = 20_000
"""Lines that wait in memory while the disk has no room for them."""

_READ_BYTES = 64 * 1024
_AS_GZIP = 16 + zlib.MAX_WBITS

_encode = json.JSONEncoder().encode


class Manifest:
    """Append only; whoever resumes a cleanup adds to the same list."""

    def __init__(self, keep: Callable[[], Kept]) -> None:
        self._keep = keep
        self._lines: list[str] = []
        self._end: int | None = None
        self.unwritten = 0
        self.is_resumed = False
        """Whether an earlier run of this recovery had removed something."""

    def announce(self, folder: str, files: Iterable[Seen]) -> None:
        """What goes next, once it is written down: what is known of it, by its full path."""
        start = _encode(f"{folder}/")[:-1]
        self._lines += [
            f"[{start}{_encode(seen.name)[1:]},{seen.size},{seen.written}]" for seen in files
        ]

    def spare(self, folder: str, names: Iterable[str]) -> None:
        """What was announced and is still there."""
        self._lines += [f'[{_encode(f"{folder}/{name}")},"kept"]' for name in names]

    def write(self) -> None:
        """Append what waits, before any of it goes.

        On a full disk it waits on, up to a bound.
        """
        if not self._lines:
            return
        packed = gzip.compress("\n".join([*self._lines, ""]).encode("ascii"), 1)
        try:
            self._append(packed)
        except (OSError, NothingKept):
            self.unwritten += max(len(self._lines) - MOST_UNWRITTEN, 0)
            del self._lines[:-MOST_UNWRITTEN]
        else:
            self._lines.clear()

    def _append(self, packed: bytes) -> None:
        """Add a member behind the whole ones; what is cut off would hide all that comes after."""
        kept = self._keep()
        path = kept.folder / FILE
        if self._end is None:
            self._end = _whole(path)
            self.is_resumed = self._end > 0
        with path.open("ab", buffering=0) as sink:
            sink.truncate(self._end)
            if sink.write(packed) != len(packed):
                sink.truncate(self._end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._end == 0:
            # Found as well if nobody comes to close it.
            with suppress(NothingKept):
                kept.store("the names of files as they are removed; nothing to bring back")
        self._end += len(packed)

    @property
    def is_begun(self) -> bool:
        return bool(self._end)

    def close(self, summary: str, **facts: int) -> bool:
        """Say what the list is; False where the disk did not take all of it."""
        self.write()
        try:
            self._keep().store(summary, **facts)
        except NothingKept:
            return False
        return not self._lines and not self.unwritten


def _whole(path: Path) -> int:
    """Bytes of a list up to where a writer that was killed, or had no room, left half a member."""
    if not path.exists():
        return 0
    whole = read = 0
    member = zlib.decompressobj(_AS_GZIP)
    with path.open("rb") as source, suppress(zlib.error):
        while chunk := source.read(_READ_BYTES):
            read += len(chunk)
            while chunk:
                member.decompress(chunk)
                chunk = member.unused_data
                if member.eof:
                    whole, member = read - len(chunk), zlib.decompressobj(_AS_GZIP)
    return whole

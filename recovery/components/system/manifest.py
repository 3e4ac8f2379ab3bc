"""The list of what a cleanup removes: path, bytes and time of the last change, a line each.

Each batch is on disk before its first file goes, so that a cleanup that is killed has named all
that it removed. The list cannot bring anything back: what the policy calls disposable is.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable

from recovery.components.system.seen import Seen
from recovery.errors import NothingKept
from recovery.strategy import Kept

FILE = "removed.jsonl.gz"
MOST_UNWRITTEN = 20_000
"""Lines that wait in memory while the disk has no room for them."""

_encode = json.JSONEncoder().encode


class Manifest:
    """Append only; whoever resumes a cleanup adds to the same list."""

    def __init__(self, keep: Callable[[], Kept]) -> None:
        self._keep = keep
        self._lines: list[str] = []
        self.unwritten = 0

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
        # Each write is a whole member, so that a cut-off one spoils nothing before it.
        packed = gzip.compress("\n".join([*self._lines, ""]).encode("ascii"), 1)
        try:
            with (self._keep().folder / FILE).open("ab") as sink:
                sink.write(packed)
        except (OSError, NothingKept):
            self.unwritten += max(len(self._lines) - MOST_UNWRITTEN, 0)
            del self._lines[:-MOST_UNWRITTEN]
        else:
            self._lines.clear()

    def close(self, summary: str, **facts: int) -> bool:
        """Say what the list is; False where the disk did not take all of it."""
        self.write()
        try:
            self._keep().store(summary, **facts)
        except NothingKept:
            return False
        return not self._lines and not self.unwritten

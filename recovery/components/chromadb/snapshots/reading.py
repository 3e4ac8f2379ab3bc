"""One collection of a server read whole into a file, and whether it stood still meanwhile.

What the API shows is compared: the ids that were read with those that there are afterwards. A
record that was replaced under its id in between is there once, as it was when its page was read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from recovery.components.chromadb.api import Overlong
from recovery.components.chromadb.editing import EVERYTHING, PAGE, ChromaEditor
from recovery.components.chromadb.snapshots import records
from recovery.components.chromadb.snapshots.records import Records
from recovery.errors import RemedyError, SnapshotDamaged
from recovery.runtime import Remaining

ROUNDS = 3


@dataclass(slots=True)
class CollectionReader:
    """``room`` raises where the disk has not so many bytes to spare."""

    editor: ChromaEditor
    listed: dict[str, Any]
    room: Callable[[int], None]
    remaining: Remaining

    def read(self, file: Path) -> tuple[int, bool]:
        """How many records were read, and whether every round met a writer."""
        counted = 0
        for _ in range(ROUNDS):
            counted, ids = self._write(file)
            if self.editor.count(self._id) == counted and self._ids() == ids:
                return counted, False
        return counted, True

    @property
    def _id(self) -> str:
        return str(self.listed["id"])

    def _write(self, file: Path) -> tuple[int, bytes]:
        digest, counted = hashlib.sha256(), 0
        size = self.editor.page_size(self.listed.get("dimension"))
        with file.open("wb") as sink:
            while True:
                page, size = self._page(counted, size)
                if not page["ids"]:
                    return counted, digest.digest()
                self._add(sink, page)
                _take_in(digest, page)
                counted += len(page["ids"])

    def _add(self, sink: IO[bytes], page: Records) -> None:
        try:
            written = list(records.lines(page))
        except records.NoVector as error:
            raise SnapshotDamaged(f"{self.listed['name']}: {error}") from error
        self.room(sum(map(len, written)))
        sink.writelines(written)

    def _page(self, offset: int, size: int) -> tuple[Records, int]:
        """And the size that it had to have: what a record weighs is only known afterwards."""
        while True:
            self.remaining()
            try:
                return self.editor.read(self._id, offset, size, EVERYTHING), size
            except Overlong as error:
                if size == 1:
                    raise RemedyError(f"{self.listed['name']}: a record is too long") from error
                size = max(size // 4, 1)

    def _ids(self) -> bytes:
        digest, offset = hashlib.sha256(), 0
        while True:
            self.remaining()
            page = self.editor.read(self._id, offset, PAGE, ())
            if not page["ids"]:
                return digest.digest()
            _take_in(digest, page)
            offset += len(page["ids"])


def _take_in(digest: Any, page: Records) -> None:
    for identity in page["ids"]:
        encoded = identity.encode(errors="surrogatepass")
        digest.update(len(encoded).to_bytes(4) + encoded)

"""One sealed file of the audit trail: a header line, then one line an entry, as JSON.

Reading a file proves it against its own header. That the header is the one that was written is
proved by the next file and the anchor: see ``chain``.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import ValidationError

from recovery.audit.entries import AuditEntry, order, read_line
from recovery.errors import AuditDamaged
from recovery.strategy import StrictModel

DRAFT = ".draft"
"""Ends the name of a file that is not in its place yet."""

_CHUNK = 1 << 16
_MOST_NAMED = 10
_DIGEST = b',"header_sha256":"'
_DIGEST_LENGTH = 64


class Kind(StrEnum):
    """What can be wrong with the trail."""

    ALTERED = "altered"
    REORDERED = "reordered"
    TRUNCATED = "truncated"
    MISSING_ENTRY = "missing_entry"
    MISSING_FILE = "missing_file"
    BAD_HEADER = "bad_header"
    GAP = "gap"
    COUNTED_BACK = "counted_back"


class Previous(StrictModel):
    """The file before, and the SHA-256 of its bytes as they lay on disk."""

    file: str
    sha256: str


class Header(StrictModel):
    """The first line. ``number`` counts the files of the chain from 1.

    ``after_n`` and ``last_n`` are the numbers of the last entry before this file and up to its end;
    ``entries_sha256`` is of every byte behind the header line, uncompressed.
    """

    format: Literal[1] = 1
    file: str
    number: int
    day: str
    host: str
    sealed_at: str
    count: int
    first_id: str
    last_id: str
    after_n: int
    last_n: int
    previous: Previous | None
    entries_sha256: str


def write(path: Path, header: Header, lines: Iterable[str]) -> None:
    """Write a new file, compressed where its name says so, and wait for the disk.

    Raises ``FileExistsError`` and every other ``OSError``.
    """
    compressed = header.file.endswith(".gz")
    with path.open("xb") as raw:
        sink: Any = (
            gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) if compressed else raw
        )
        sink.write(_render(header))
        for line in lines:
            sink.write(line.encode() + b"\n")
        if compressed:
            sink.close()
        raw.flush()
        os.fsync(raw.fileno())


def digest_of_entries(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256 of the bytes on disk; raises ``OSError``."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def read_header(path: Path) -> Header:
    """Raises ``AuditDamaged`` and ``OSError``."""
    with _opened(path) as source:
        return _parse(_final_name(path), source.readline())


def read(path: Path) -> Iterator[tuple[str, AuditEntry]]:
    """Yield each line that can be read with its entry.

    Raises ``AuditDamaged`` behind the last of them where the file is not what its header says, and
    ``OSError`` where it cannot be read at all.
    """
    proof = _Proof(_final_name(path))
    with _opened(path) as source:
        proof.take_header(source.readline())
        for raw in source:
            taken = proof.take(raw)
            if taken is not None:
                yield taken
    proof.finish()


def damaged(file: str, kind: Kind, what: str) -> AuditDamaged:
    return AuditDamaged(f"{file}: {what}", {"file": file, "finding": kind.value})


class _Proof:
    """Follows one file line by line and says in the end what is wrong with it."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.header: Header | None = None
        self.header_damage: AuditDamaged | None = None
        self.digest = hashlib.sha256()
        self.lines = 0
        self.last_id: str | None = None
        self.last_n: int | None = None
        self.unreadable: list[int] = []
        self.skipped: list[int] = []
        self.is_ordered = True
        self.is_whole = True

    def take_header(self, line: bytes) -> None:
        try:
            self.header = _parse(self.file, line)
        except AuditDamaged as damage:
            self.header_damage = damage

    def take(self, raw: bytes) -> tuple[str, AuditEntry] | None:
        self.lines += 1
        self.digest.update(raw)
        self.is_whole = raw.endswith(b"\n")
        try:
            line = raw.decode().removesuffix("\n")
            entry = read_line(line)
            self._follow(entry)
        except ValueError:
            self.unreadable.append(self.lines)
            return None
        return line, entry

    def finish(self) -> None:
        """Raises ``AuditDamaged``."""
        if self.header_damage is not None:
            raise self.header_damage
        if self.header is None or self.digest.hexdigest() == self.header.entries_sha256:
            return
        raise damaged(self.file, *self._judge(self.header))

    def _follow(self, entry: AuditEntry) -> None:
        if self.last_id is not None and order(entry.id) <= order(self.last_id):
            self.is_ordered = False
        if entry.n is not None:
            if self.last_n is not None:
                self.skipped += range(self.last_n + 1, entry.n)[: _MOST_NAMED - len(self.skipped)]
            self.last_n = entry.n
        self.last_id = entry.id

    def _judge(self, header: Header) -> tuple[Kind, str]:
        counted = f"{self.lines} entries, its header says {header.count}"
        if not self.is_whole or (self.lines < header.count and self.last_id != header.last_id):
            return Kind.TRUNCATED, f"it ends too early: {counted}"
        if self.lines < header.count:
            names = ", ".join(str(n) for n in self.skipped) or "unknown"
            return Kind.MISSING_ENTRY, f"{counted}; number missing: {names}"
        if self.unreadable:
            named = ", ".join(str(number) for number in self.unreadable[:_MOST_NAMED])
            return Kind.ALTERED, f"no audit entry in line {named} behind the header"
        if not self.is_ordered:
            return Kind.REORDERED, "its entries are not in the order in which they were written"
        if self.lines > header.count:
            return Kind.ALTERED, counted
        return Kind.ALTERED, "its entries are not those that were sealed"


def _render(header: Header) -> bytes:
    body = header.model_dump_json().encode()
    digest = hashlib.sha256(body).hexdigest().encode()
    return body[:-1] + _DIGEST + digest + b'"}\n'


def _final_name(path: Path) -> str:
    return path.name.removesuffix(DRAFT)


def _parse(file: str, line: bytes) -> Header:
    if not line.endswith(b"\n"):
        raise damaged(file, Kind.TRUNCATED, "it ends in its first line")
    body = line[: -(_DIGEST_LENGTH + len(_DIGEST) + len(b'"}\n'))] + b"}"
    try:
        header = Header.model_validate_json(body, strict=True)
    except ValidationError:
        raise damaged(file, Kind.BAD_HEADER, "its first line is no header of ours") from None
    if _render(header) != line:
        raise damaged(file, Kind.BAD_HEADER, "its header was changed")
    if header.file != file:
        raise damaged(file, Kind.BAD_HEADER, f"it was sealed under the name {header.file}")
    return header


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's lines, decompressed; what breaks decompression is damage."""
    try:
        with path.open("rb", buffering=_CHUNK) as raw:
            source: Any = gzip.GzipFile(fileobj=raw) if ".gz" in path.suffixes else raw
            yield source
    except EOFError:
        raise damaged(path.name, Kind.TRUNCATED, "its compressed data ends too early") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise damaged(path.name, Kind.ALTERED, f"it cannot be decompressed: {error}") from None

"""The file in which deleted keys are kept: compressed blocks, each checked, each synced.

A block of records is on the disk before any of its keys is removed. Behind it stands what became
of each key, once that is known. Whatever is torn at the end was not yet acted upon.
"""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import IO, NamedTuple, Self

from recovery.errors import NothingKept

FILE = "keys.archive"
NO_EXPIRY = -1

TAKEN, LEFT, UNSURE = ord("1"), ord("0"), ord("?")
"""What became of a key: removed by us; still there, changed; or perhaps removed by us."""

_MAGIC = b"recovery keys 1\n"
_FRAME = struct.Struct(">cHIII")
"""Kind, tag, number of records, stored bytes, checksum of all that and of what is stored."""

_UNSUMMED = struct.Struct(">cHII")
_RECORD = struct.Struct(">IIq")
"""Bytes of the key, bytes of its dump, when it expires; key and dump follow."""

_BLOCK, _FATE = b"B", b"F"
_FASTEST = 1
_PARTS = 64


class Record(NamedTuple):
    """One key as DUMP gave it. ``expires_ms``: epoch ms of its server, or ``NO_EXPIRY``."""

    key: bytes
    expires_ms: int
    dump: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Records that were stored together; ``tag`` as it was given; ``fate`` None where unknown."""

    tag: int
    records: Sequence[Record]
    fate: bytes | None

    def removed(self) -> Iterator[tuple[int, Record]]:
        """Place and record of each key that was, or may have been, removed."""
        for place, record in enumerate(self.records):
            if self.fate is None or self.fate[place] != LEFT:
                yield place, record


def pack(records: Sequence[Record]) -> bytes:
    parts = []
    for record in records:
        parts += [
            _RECORD.pack(len(record.key), len(record.dump), record.expires_ms),
            record.key,
            record.dump,
        ]
    return b"".join(parts)


def unpack(raw: bytes) -> list[Record]:
    """The records of ``pack``, which is also the form in which the server's script gives them."""
    found, at = [], 0
    while at < len(raw):
        key_bytes, dump_bytes, expires_ms = _RECORD.unpack_from(raw, at)
        at += _RECORD.size
        dump_at = at + key_bytes
        end = dump_at + dump_bytes
        found.append(Record(raw[at:dump_at], expires_ms, raw[dump_at:end]))
        at = end
    return found


@dataclass(frozen=True, slots=True)
class _Frame:
    kind: bytes
    tag: int
    count: int
    stored: bytes
    end: int


def _frames(source: IO[bytes]) -> Iterator[_Frame]:
    """The whole frames of a file up to the first that is not; nothing is raised for that."""
    size = os.fstat(source.fileno()).st_size
    if source.read(len(_MAGIC)) != _MAGIC:
        return
    while len(head := source.read(_FRAME.size)) == _FRAME.size:
        kind, tag, count, length, checksum = _FRAME.unpack(head)
        # A damaged length may promise more than there is.
        stored = source.read(min(length, size))
        if len(stored) < length or _checksum(kind, tag, count, stored) != checksum:
            return
        yield _Frame(kind, tag, count, stored, source.tell())


def _checksum(kind: bytes, tag: int, count: int, stored: bytes) -> int:
    return zlib.crc32(stored, zlib.crc32(_UNSUMMED.pack(kind, tag, count, len(stored))))


def blocks(path: Path) -> Iterator[Block]:
    """Every block of an archive in the order of writing; one in memory at a time."""
    with path.open("rb") as source:
        waiting: _Frame | None = None
        for frame in _frames(source):
            if frame.kind == _BLOCK:
                if waiting is not None:
                    yield _block(waiting, None)
                waiting = frame
            elif waiting is not None:
                yield _block(waiting, frame.stored)
                waiting = None
        if waiting is not None:
            yield _block(waiting, None)


def unreadable_bytes(path: Path) -> int:
    """How much stands behind the last whole frame."""
    with path.open("rb") as source:
        end = 0
        for frame in _frames(source):
            end = frame.end
    return path.stat().st_size - max(end, len(_MAGIC))


def superseded(path: Path) -> set[tuple[int, int]]:
    """Block and place of every record behind which a newer one of the same key stands.

    Eight bytes a key are held meanwhile, not the keys; in parts, since sorting takes five times
    as much.
    """
    parts = [array("Q") for _ in range(_PARTS)]
    for _, _, record in _removed(path):
        short = _short(record.key)
        parts[short % _PARTS].append(short)
    twice = {one for part in parts for one, other in pairwise(sorted(part)) if one == other}
    last: dict[bytes, tuple[int, int]] = {}
    old: set[tuple[int, int]] = set()
    if twice:
        for number, place, record in _removed(path):
            if _short(record.key) in twice:
                if record.key in last:
                    old.add(last[record.key])
                last[record.key] = (number, place)
    return old


def _removed(path: Path) -> Iterator[tuple[int, int, Record]]:
    for number, block in enumerate(blocks(path)):
        for place, record in block.removed():
            yield number, place, record


def _short(key: bytes) -> int:
    return int.from_bytes(blake2b(key, digest_size=8).digest())


def _block(frame: _Frame, fate: bytes | None) -> Block:
    return Block(tag=frame.tag, records=unpack(zlib.decompress(frame.stored)), fate=fate)


class KeyArchive:
    """An archive to which one process appends; ``room`` says how many bytes it may still take.

    A block appended must be settled before the next one is: what became of each of its keys.
    """

    def __init__(self, path: Path, room: Callable[[], int]) -> None:
        self.path = path
        self.kept = 0
        self.pending: Block | None = None
        self._room = room
        self._end = 0
        self._file: int | None = None

    def __enter__(self) -> Self:
        """Make or open the file, and cut off what is torn; raises ``NothingKept``."""
        try:
            self._open()
        except OSError as error:
            raise NothingKept(f"cannot use {self.path}: {error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)

    def append(self, records: Sequence[Record], tag: int = 0) -> None:
        """On the disk before it returns; raises ``NothingKept`` where it is not."""
        self._write(_BLOCK, tag, len(records), zlib.compress(pack(records), _FASTEST), sync=True)
        self.pending = Block(tag=tag, records=records, fate=None)

    def settle(self, fate: bytes) -> None:
        """Say what became of the pending block: one of ``TAKEN``, ``LEFT``, ``UNSURE`` a key."""
        self._write(_FATE, 0, len(fate), fate, sync=False)
        self.kept += len(fate) - fate.count(LEFT)
        self.pending = None

    @property
    def size(self) -> int:
        return self._end

    def _open(self) -> None:
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        begun = os.pread(self._file, len(_MAGIC), 0)
        if begun != _MAGIC:
            if os.fstat(self._file).st_size > len(_MAGIC):
                raise NothingKept(f"{self.path} is no archive of keys")
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, _MAGIC, 0)
        self._end = len(_MAGIC)
        self._read()
        if os.fstat(self._file).st_size > self._end:
            self._cut_tail(self._file)
        os.fsync(self._file)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _read(self) -> None:
        last: _Frame | None = None
        with self.path.open("rb") as source:
            for frame in _frames(source):
                self._end = frame.end
                last = frame if frame.kind == _BLOCK else None
                if last is None:
                    self.kept += len(frame.stored) - frame.stored.count(LEFT)
        self.pending = None if last is None else _block(last, None)

    def _cut_tail(self, file: int) -> None:
        """Nothing that was written is thrown away: what cannot be read is moved beside."""
        number = len(list(self.path.parent.glob(f"{self.path.name}.torn-*")))
        with self.path.open("rb") as source:
            source.seek(self._end)
            with self.path.with_name(f"{self.path.name}.torn-{number}").open("wb") as aside:
                shutil.copyfileobj(source, aside)
        os.ftruncate(file, self._end)

    def _write(self, kind: bytes, tag: int, count: int, stored: bytes, *, sync: bool) -> None:
        if self._file is None:
            raise NothingKept(f"{self.path} is not open")
        checksum = _checksum(kind, tag, count, stored)
        frame = _FRAME.pack(kind, tag, count, len(stored), checksum) + stored
        if sync and len(frame) > self._room():
            raise NothingKept(f"no room to keep {len(frame)} bytes more in {self.path.parent}")
        try:
            written = 0
            while written < len(frame):
                written += os.pwrite(self._file, frame[written:], self._end + written)
            if sync:
                os.fdatasync(self._file)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise NothingKept(f"cannot write {self.path}: {error}") from error
        self._end += len(frame)

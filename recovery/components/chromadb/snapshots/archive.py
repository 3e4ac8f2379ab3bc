"""The archive of a snapshot: a tar in zstd that ``tar --zstd -x`` reads as well.

Nothing in an archive is believed: only regular files that the manifest names come out of it, with
the size and the digest that stand there, and nowhere but below the folder they are meant for.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from recovery.components.chromadb.snapshots.manifest import Manifest, StoredFile
from recovery.errors import NotCopied, SnapshotDamaged
from recovery.runtime import Remaining

LEVEL = 1
"""Vectors take the room, and no level makes less of them: 3 saves a hundredth, and takes twice as
long."""
CHUNK_BYTES = 4 * 1024 * 1024
PIECE_BYTES = 256 * 1024
MOST_WINDOW_BYTES = 128 * 1024 * 1024
"""What a decompressor may be made to allocate."""


@dataclass(frozen=True, slots=True)
class Packed:
    files: dict[str, StoredFile]
    bytes: int
    sha256: str


class _Hashing:
    """A file that knows the digest of what passed through it."""

    def __init__(self, file: IO[bytes], remaining: Remaining) -> None:
        self._file = file
        self._remaining = remaining
        self.digest = hashlib.sha256()
        self.bytes = 0

    def write(self, chunk: bytes) -> int:
        self.digest.update(chunk)
        self.bytes += len(chunk)
        return self._file.write(chunk)

    def read(self, size: int = -1) -> bytes:
        self._remaining()
        chunk = self._file.read(size)
        self.digest.update(chunk)
        self.bytes += len(chunk)
        return chunk


def pack(folder: Path, names: list[str], archive: Path, remaining: Remaining) -> Packed:
    """Write an archive of these files and see it on the disk. Raises ``NotCopied``."""
    import zstandard

    files: dict[str, StoredFile] = {}
    with _named(archive), archive.open("wb") as file:
        sink = _Hashing(file, remaining)
        compressor = zstandard.ZstdCompressor(level=LEVEL, threads=-1)
        with (
            compressor.stream_writer(cast("IO[bytes]", sink), closefd=False) as stream,
            # Its own streams gather small pieces first, which costs as much as compressing them.
            tarfile.TarFile(
                fileobj=cast("IO[bytes]", stream),
                mode="w",
                format=tarfile.PAX_FORMAT,
                copybufsize=PIECE_BYTES,
            ) as tar,
        ):
            for name in names:
                files[name] = _add(tar, folder / name, name, remaining)
        file.flush()
        os.fsync(file.fileno())
    return Packed(files, sink.bytes, sink.digest.hexdigest())


def _add(tar: tarfile.TarFile, path: Path, name: str, remaining: Remaining) -> StoredFile:
    with path.open("rb") as file:
        known = os.fstat(file.fileno())
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = known.st_size, known.st_mode & 0o777, known.st_mtime
        source = _Hashing(file, remaining)
        tar.addfile(info, source)
    return StoredFile(
        bytes=known.st_size, sha256=source.digest.hexdigest(), mode=known.st_mode & 0o777
    )


def unpack(archive: Path, manifest: Manifest, into: Path, remaining: Remaining) -> None:
    """Fill an empty folder with exactly what the manifest names.

    Raises ``SnapshotDamaged`` where the archive holds anything else, and ``NotCopied`` where it
    cannot be written.
    """
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW_BYTES)
    with _named(into), archive.open("rb") as file, ThreadPoolExecutor(1) as beside:
        extraction = _Extraction(manifest, into, remaining, beside)
        try:
            with (
                decompressor.stream_reader(file) as stream,
                tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK_BYTES) as tar,
            ):
                for member in tar:
                    extraction.take(tar, member)
        except (zstandard.ZstdError, tarfile.TarError, EOFError, UnicodeError) as error:
            raise extraction.damaged(f"the archive cannot be read: {error}") from error
    if extraction.missing:
        first = min(extraction.missing)
        raise extraction.damaged(f"{len(extraction.missing)} files are missing, {first} is one")


class _Extraction:
    """What of a manifest an archive has given so far."""

    def __init__(
        self, manifest: Manifest, into: Path, remaining: Remaining, beside: Executor
    ) -> None:
        self.missing = dict(manifest.files)
        self._beside = beside
        self._snapshot = manifest.name
        self._into = into
        self._remaining = remaining

    def take(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        stored = self.missing.pop(member.name, None)
        content = tar.extractfile(member) if stored and member.isreg() else None
        if stored is None or content is None or member.issparse():
            raise self.damaged(f"the archive holds {member.name[:80]!r}, which is not expected")
        if member.size != stored.bytes:
            raise self.damaged(f"{member.name} has {member.size} of {stored.bytes} bytes")
        place = self._into / member.name
        place.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
        with os.fdopen(os.open(place, flags, stored.mode), "wb") as sink:
            os.fchmod(sink.fileno(), stored.mode)
            if self._copy(content, sink) != stored.sha256:
                raise self.damaged(f"{member.name} is not what was stored")

    def _copy(self, source: Any, sink: IO[bytes]) -> str:
        """Its digest, which is computed while the next piece is unpacked."""
        digest = hashlib.sha256()
        hashed: Future[None] | None = None
        while chunk := source.read(CHUNK_BYTES):
            self._remaining()
            if hashed:
                hashed.result()
            hashed = self._beside.submit(digest.update, chunk)
            sink.write(chunk)
        if hashed:
            hashed.result()
        return digest.hexdigest()

    def damaged(self, what: str) -> SnapshotDamaged:
        facts = {"snapshot": self._snapshot}
        return SnapshotDamaged(f"snapshot {self._snapshot}: {what}", facts)


@contextmanager
def _named(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotCopied(f"{error.filename or place}: {error.strerror}") from error

"""What one snapshot says of itself: the file ``manifest.json`` beside its archive."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, Field, NonNegativeInt

from recovery.strategy import StrictModel

FILE = "manifest.json"
ARCHIVE = "data.tar.zst"
MOST_BYTES = 64 * 1024 * 1024
"""A manifest longer than this was not written by us."""
MOST_DEPTH = 8

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]


def _stays_inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if (
        not parts
        or path != str(PurePosixPath(path))
        or path.startswith("/")
        or {".", ".."} & set(parts)
        or "\0" in path
        or len(parts) > MOST_DEPTH
    ):
        raise ValueError(f"{path[:80]!r} is no path below the directory")
    return path


Inside = Annotated[str, AfterValidator(_stays_inside)]
"""A path below the directory, in the one way to write it."""


class StoredFile(StrictModel):
    bytes: NonNegativeInt
    sha256: Sha256
    mode: int = Field(ge=0, le=0o777)


class StoredCollection(StrictModel):
    """``file``, ``settings`` and ``moving`` are of an export alone: where its records are, how the
    server listed it, and whether it was written to during every reading of it."""

    tenant: str
    database: str
    name: str
    records: NonNegativeInt
    file: Inside | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    moving: bool = False


class Manifest(StrictModel):
    """``sequence``: which one it is of those of its target, counted from 1; 0: not counted yet.
    ``schema_versions``: of each part of Chroma's database, its newest migration.

    ``position``: how far the log had come. ``chroma``: the version that opened and read the
    restored copy. ``server``: the version of the server that an export was read from.
    ``stopped_seconds``: how long the server was down for it.
    ``verified_seconds``: how long unpacking and reading it took.
    """

    format: Literal[1] = 1
    name: Name
    sequence: int = Field(default=0, ge=0, lt=2**53)
    target: str
    taken_at: AwareDatetime
    method: Literal["quiesce", "stop", "export"]
    chroma: str
    server: str | None = None
    schema_versions: dict[str, int]
    position: NonNegativeInt
    archive_bytes: NonNegativeInt
    archive_sha256: Sha256
    files: dict[Inside, StoredFile]
    skipped: tuple[str, ...] = ()
    collections: tuple[StoredCollection, ...]
    queried: NonNegativeInt
    verified_at: AwareDatetime
    stopped_seconds: float = Field(ge=0)
    verified_seconds: float = Field(default=0.0, ge=0)

    @property
    def is_export(self) -> bool:
        """Records that were read through the API, and no directory that a server could open."""
        return self.method == "export"

    @property
    def bytes(self) -> int:
        """What it takes when it is restored."""
        return sum(file.bytes for file in self.files.values())

    @property
    def records(self) -> int:
        return sum(collection.records for collection in self.collections)

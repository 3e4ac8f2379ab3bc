"""What one snapshot says of itself: the file ``manifest.json`` beside its archive."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import AfterValidator, AwareDatetime, Field, NonNegativeInt, ValidationError

from recovery.strategy import StrictModel
from recovery.text import readable
from recovery.version import __version__

FILE = "manifest.json"
FORMAT = 1
ARCHIVE = "data.tar.zst"
MOST_BYTES = 64 * 1024 * 1024
"""A manifest longer than this was not written by us."""
MOST_DEPTH = 8
LONGEST_SAID = 40

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
    """``written_by``: the version of ours that made it, to be named by one that cannot read it.
    ``judged_by``: the one that found nothing wrong in its files before Chroma opened them; None
    where nobody looked, or not at all of them.
    ``sequence``: which one it is of those of its target, counted from 1; 0: not counted yet.
    ``schema_versions``: of each part of Chroma's database, its newest migration.

    ``position``: how far the log had come. ``chroma``: the version that opened and read the
    restored copy. ``server``: the version of the server that an export was read from.
    ``stopped_seconds``: how long the server was down for it.
    ``verified_seconds``: how long unpacking and reading it took.
    """

    format: Literal[1] = 1
    written_by: str | None = Field(default=None, max_length=LONGEST_SAID)
    judged_by: str | None = Field(default=None, max_length=LONGEST_SAID)
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


class NoManifest(Exception):
    """The text says, to a person, why a file is none that can be read here."""


def read(file: Path) -> Manifest:
    """Raises ``NoManifest``."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise NoManifest(f"its {FILE} is longer than any of ours")
        content = file.read_bytes()
    except OSError as error:
        raise NoManifest(f"its {FILE} cannot be read: {error.strerror}") from error
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise NoManifest(_of_a_later_version(content) or _unreadable(error)) from error


def _of_a_later_version(content: bytes) -> str | None:
    """What is there and unknown here was added since; nothing is guessed from the rest."""
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    form, unknown = said.get("format"), sorted(set(said) - set(Manifest.model_fields))
    if form == FORMAT and not unknown:
        return None
    what = f"is of format {form!r:.{LONGEST_SAID}}"
    if form == FORMAT:
        what = readable(f"has {', '.join(unknown):.{LONGEST_SAID}}")
    writer = said.get("written_by")
    by = f", written by recovery {readable(writer[:LONGEST_SAID])}" if _is_text(writer) else ""
    return f"its {FILE} {what}{by}: recovery {__version__} cannot read that, a later one can"


def _unreadable(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"its {FILE} cannot be read: {readable(where)[:LONGEST_SAID]}: {first['msg'][:100]}"


def _is_text(said: object) -> TypeGuard[str]:
    return isinstance(said, str)

"""A snapshot of a server that is reached by its API alone: every collection read page by page.

Nobody is stopped for it. A collection that was written to while it was read is read again; one
that never stands still is kept as it was read, and the manifest says so.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recovery.components.chromadb import exclusive, neighbours
from recovery.components.chromadb.editing import ChromaEditor, heard
from recovery.components.chromadb.snapshots import archive, manifest, verifying
from recovery.components.chromadb.snapshots.catalogue import Catalogue
from recovery.components.chromadb.snapshots.manifest import Manifest, StoredCollection
from recovery.components.chromadb.snapshots.reading import CollectionReader
from recovery.components.chromadb.target import ChromaTarget
from recovery.deadline import Deadline
from recovery.errors import NotCopied, RemedyError, SnapshotDamaged, TargetBusy
from recovery.runtime import Remaining

BUSY_SECONDS = 10.0
SETTINGS = ("id", "metadata", "configuration_json", "schema", "dimension")
RESTORED = 3
"""How many times an export's size a directory with its records may have, log and index together."""
IMPORT = (sys.executable, "-m", "recovery.components.chromadb.snapshots.importing")

Note = Callable[[str], None]


def take(target: ChromaTarget, ref: str, catalogue: Catalogue, note: Note) -> Manifest:
    """Take, verify and keep one. Raises ``RemedyError`` of every kind, and then nothing is kept."""
    remaining = Deadline(target.snapshots.timeout).remaining
    with (
        exclusive.alone_on_server(target, BUSY_SECONDS),
        exclusive.alone(catalogue.directory, BUSY_SECONDS),
    ):
        catalogue.sweep()
        catalogue.note_attempt()
        made = _Export(target, ref, catalogue, remaining, note).run()
        catalogue.retain(target.snapshots.keep, note)
    return made


@dataclass(slots=True)
class _Export:
    target: ChromaTarget
    ref: str
    catalogue: Catalogue
    remaining: Remaining
    note: Note

    def run(self) -> Manifest:
        place = self.catalogue.begin(self.catalogue.free_name())
        try:
            return self._make(place)
        except OSError as error:
            raise NotCopied(f"{error.filename or place}: {error.strerror}") from error
        finally:
            # Renamed where it counts; otherwise nothing of it is to stay.
            shutil.rmtree(place, ignore_errors=True)

    def _make(self, place: Path) -> Manifest:
        exported = place / "exported"
        exported.mkdir()
        with ChromaEditor.of(self.target, self.remaining()) as editor:
            with heard():
                version = editor.version()
            collections = self._read(editor, exported)
        taken_at = datetime.now(UTC)
        names = [str(one.file) for one in collections]
        packed = archive.pack(exported, names, place / manifest.ARCHIVE, self.remaining)
        shutil.rmtree(exported)
        made = Manifest(
            name=place.name.partition("-")[2],
            target=self.ref,
            taken_at=taken_at,
            method="export",
            chroma="",
            server=version,
            schema_versions={},
            position=0,
            archive_bytes=packed.bytes,
            archive_sha256=packed.sha256,
            files=packed.files,
            collections=collections,
            queried=0,
            verified_at=taken_at,
            stopped_seconds=0,
        )
        made = self._verified(place, made)
        self.catalogue.commit(place, made)
        return made

    def _read(self, editor: ChromaEditor, exported: Path) -> tuple[StoredCollection, ...]:
        found = []
        listed = editor.all()
        _refuse_cut_off({one["name"] for one in listed})
        own = (one for one in listed if not neighbours.is_one(one["name"]))
        for number, one in enumerate(own):
            name = f"{number:05d}.jsonl"
            reader = CollectionReader(editor, one, self._room, self.remaining)
            try:
                records, moving = reader.read(exported / name)
            except RemedyError:
                if _is_there(editor, one):
                    raise
                self.note(f"{one['name']} was deleted while it was read")
                (exported / name).unlink(missing_ok=True)
                continue
            if moving:
                self.note(f"{one['name']} was written to during every reading of it")
            found.append(self._stored(one, name, records, moving=moving))
        return tuple(found)

    def _room(self, size: int) -> None:
        self.catalogue.need_room(size, "an export")

    def _stored(
        self, listed: dict[str, Any], name: str, records: int, *, moving: bool
    ) -> StoredCollection:
        return StoredCollection(
            tenant=self.target.tenant,
            database=self.target.database,
            name=listed["name"],
            records=records,
            file=name,
            settings={key: listed[key] for key in SETTINGS if listed.get(key) is not None},
            moving=moving,
        )

    def _verified(self, place: Path, made: Manifest) -> Manifest:
        began = time.monotonic()
        self._room((1 + RESTORED) * made.bytes)
        exported, restored = place / "exported", place / "restored"
        exported.mkdir()
        archive.unpack(place / manifest.ARCHIVE, made, exported, self.remaining)
        counts = fill(restored, exported, self.target, made, self.remaining)
        shutil.rmtree(exported)
        found = verifying.verify(restored, self.target, self.remaining)
        shutil.rmtree(restored)
        _refuse_unequal(made, counts)
        kept = (one.model_copy(update={"records": counts[one.name]}) for one in made.collections)
        return made.model_copy(
            update={
                "chroma": found.chroma,
                "collections": tuple(kept),
                "queried": found.queried,
                "verified_at": datetime.now(UTC),
                "verified_seconds": round(time.monotonic() - began, 3),
            }
        )


def fill(
    into: Path, exported: Path, target: ChromaTarget, made: Manifest, remaining: Remaining
) -> dict[str, int]:
    """Have a child make a Chroma directory of an export: how many records each collection has.

    Raises ``SnapshotDamaged`` and ``NotCopied``.
    """
    into.mkdir()
    seconds = remaining()
    order = {
        "exported": str(exported),
        "into": str(into),
        "tenant": target.tenant,
        "database": target.database,
        "collections": [
            {"name": one.name, "file": one.file, "settings": one.settings}
            for one in made.collections
        ],
        "timeout": max(seconds - 1.0, 1.0),
    }
    counts: dict[str, int] = verifying.ask(IMPORT, order, into, seconds)["imported"]
    return counts


def _refuse_unequal(made: Manifest, counts: dict[str, int]) -> None:
    for one in made.collections:
        if counts[one.name] != one.records and not one.moving:
            raise SnapshotDamaged(
                f"{one.name}: {one.records} records were read, and {counts[one.name]} came back"
            )


def _refuse_cut_off(names: set[str]) -> None:
    """It would miss the collection whose name is nobody's, and count as whole."""
    found = next(neighbours.cut_off(names), None)
    if found is not None:
        raise TargetBusy(f"{found.name} is being exchanged, or its exchange was cut off")


def _is_there(editor: ChromaEditor, listed: dict[str, Any]) -> bool:
    found = editor.find(listed["name"])
    return found is not None and found["id"] == listed["id"]

"""A server without a directory at hand is exported through its API, and the export is proven."""

from __future__ import annotations

import json
import struct
from base64 import b64decode
from pathlib import Path

import pytest

from recovery.components.chromadb import editing
from recovery.components.chromadb.neighbours import beside
from recovery.components.chromadb.snapshots import archive, manifest, reading, taking
from recovery.components.chromadb.snapshots.catalogue import Catalogue
from recovery.components.chromadb.snapshots.manifest import Manifest
from recovery.components.chromadb.target import ChromaTarget
from recovery.deadline import Deadline
from recovery.errors import (
    NotConfigured,
    NotCopied,
    SnapshotDamaged,
    TargetBusy,
    TargetUnreachable,
)
from tests.chroma import COUNT, ServedChroma, ask

REF = "chromadb/default"


@pytest.fixture
def served_target(
    chroma_server: ServedChroma, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ChromaTarget:
    monkeypatch.setenv("RECOVERY_STATE_DIR", str(tmp_path / "state"))
    return ChromaTarget(
        url=chroma_server.url,
        collections={"docs": COUNT},
        snapshots={"directory": tmp_path / "snapshots"},
        answer_timeout=20,
    )


def exported(
    target: ChromaTarget, made: Manifest, into: Path
) -> dict[str, list[dict[str, object]]]:
    """The records of each collection, as they lie in the archive."""
    into.mkdir()
    place = taking.catalogue_of(target).archive(made.name)
    archive.unpack(place, made, into, Deadline(60).remaining)
    return {
        one.name: [json.loads(line) for line in (into / str(one.file)).read_text().splitlines()]
        for one in made.collections
    }


def test_an_export_holds_every_record_with_the_bits_of_its_vector(
    served_target: ChromaTarget, tmp_path: Path
) -> None:
    made = taking.take(served_target, REF)

    assert made.method == "export"
    assert made.server
    assert made.queried
    counts = {one.name: one.records for one in made.collections}
    assert counts == {"docs": COUNT, "notes": 3, "empty": 0}
    assert not any(one.moving for one in made.collections)
    docs = next(one for one in made.collections if one.name == "docs")
    assert docs.settings["metadata"] == {"owner": "tests"}
    assert docs.settings["configuration_json"]["hnsw"]["space"] == "cosine"
    held = {str(one["id"]): one for one in exported(served_target, made, tmp_path / "out")["docs"]}
    with editing.ChromaEditor.of(served_target, 20) as editor:
        server = editor.read_ids(docs.settings["id"], ["id-7"])
    (vector,) = server["embeddings"]
    assert b64decode(str(held["id-7"]["vector"])) == struct.pack(f"<{len(vector)}f", *vector)
    assert held["id-7"]["document"] == "document 7"
    assert held["id-7"]["metadata"] == {"number": 7}


def test_in_the_middle_of_an_exchange_nothing_is_exported(served_target: ChromaTarget) -> None:
    """Of another host, say: the collection would not be in it, and nobody would see that."""
    target = served_target.model_copy(update={"collections": {}})
    with editing.ChromaEditor.of(target, 20) as editor:
        (docs,) = [one for one in editor.all() if one["name"] == "docs"]
        new = editor.create(beside("docs", "new", "other"), docs)
        editor.rename(docs["id"], beside("docs", "aside", "other"))

        with pytest.raises(TargetBusy, match="docs is being exchanged"):
            taking.take(target, REF)

        editor.rename(new["id"], "docs")
    assert {one.name for one in taking.take(target, REF).collections} == {"docs", "notes", "empty"}


def test_small_pages_give_the_same(
    served_target: ChromaTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Answers of a page are too long for this, so that smaller ones are asked for.
    monkeypatch.setattr("recovery.components.chromadb.api.MOST_BYTES", 200_000)
    monkeypatch.setattr(reading, "PAGE", 700)

    assert taking.take(served_target, REF).records == COUNT + 3


def test_the_database_of_the_target_is_meant(
    chroma_server: ServedChroma, served_target: ChromaTarget
) -> None:
    chroma_server.stop()
    place = {"tenant": "people", "database": "archive"}
    assert ask("add_database", chroma_server.directory.path, **place).returncode == 0
    chroma_server.start()

    made = taking.take(
        served_target.model_copy(update={**place, "collections": {"elsewhere": 3}}), REF
    )

    assert [(one.tenant, one.name, one.records) for one in made.collections] == [
        ("people", "elsewhere", 3)
    ]


def test_a_collection_that_is_written_to_once_is_read_again(
    served_target: ChromaTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = written_to(served_target, monkeypatch, times=1)

    (docs,) = [one for one in made.collections if one.name == "docs"]
    assert docs.records == COUNT + 1
    assert not docs.moving


def test_a_collection_that_never_stands_still_is_kept_and_said(
    served_target: ChromaTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = written_to(served_target, monkeypatch, times=100)

    assert [one.name for one in made.collections if one.moving] == ["docs"]


def written_to(target: ChromaTarget, patch: pytest.MonkeyPatch, *, times: int) -> Manifest:
    """Taken while somebody adds a record to ``docs`` each time that its ids are about to be
    compared."""
    compared = reading.CollectionReader._ids
    counter = iter(range(times))

    def ids(reader: reading.CollectionReader) -> bytes:
        if reader.listed["name"] == "docs" and (number := next(counter, None)) is not None:
            record = {"ids": [f"late-{number}"], "embeddings": [[0.5] * 16]}
            with editing.ChromaEditor.of(target, 20) as editor:
                editor.upsert(reader.listed["id"], record)
        return compared(reader)

    patch.setattr(reading.CollectionReader, "_ids", ids)
    return taking.take(target, REF)


def test_a_server_that_lost_a_collection_does_not_push_out_what_is_worth_keeping(
    served_target: ChromaTarget,
) -> None:
    with editing.ChromaEditor.of(served_target, 20) as editor:
        found = editor.find("docs")
        assert found is not None
        assert editor.drop("docs", found["id"])

    with pytest.raises(SnapshotDamaged, match="docs, which must have"):
        taking.take(served_target, REF)

    assert not taking.catalogue_of(served_target).snapshots()


def test_a_dead_server_gives_none(chroma_server: ServedChroma, served_target: ChromaTarget) -> None:
    chroma_server.kill()

    with pytest.raises(TargetUnreachable):
        taking.take(served_target, REF)

    assert not taking.catalogue_of(served_target).snapshots()


def test_a_full_disk_is_said_before_it_is_full(
    served_target: ChromaTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recovery.components.chromadb.snapshots.catalogue.FREE_SHARE", 1.0)

    with pytest.raises(NotCopied, match="can be spared"):
        taking.take(served_target, REF)


def test_a_server_out_of_reach_cannot_be_stopped_for_a_snapshot(
    served_target: ChromaTarget,
) -> None:
    with pytest.raises(NotConfigured, match="path"):
        taking.take(served_target, REF, method="stop")


def test_an_archive_that_was_changed_is_not_used(
    served_target: ChromaTarget, tmp_path: Path
) -> None:
    made = taking.take(served_target, REF)
    catalogue: Catalogue = taking.catalogue_of(served_target)
    place = catalogue.directory / made.name / manifest.ARCHIVE
    place.write_bytes(place.read_bytes()[:-100])

    with pytest.raises(SnapshotDamaged):
        exported(served_target, made, tmp_path / "out")

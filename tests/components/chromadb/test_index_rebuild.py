"""``chromadb.index_rebuild`` on directories whose indexes are really broken."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from recovery.components.chromadb.probe import probe
from recovery.errors import (
    EmbeddingUnavailable,
    NothingKept,
    NotKept,
    RemedyError,
    TargetUnreachable,
    VectorsLost,
    WouldOverwrite,
)
from recovery.keeping import size_of
from tests.chroma import (
    COUNT,
    DAMAGES,
    DATABASE_DAMAGES,
    ChromaDirectory,
    Damage,
    ask,
    noise,
    truncate,
)
from tests.components.chromadb.rebuilds import (
    OWN,
    contents,
    digests,
    discard_rebuild,
    is_alike,
    local,
    rebuild,
    undo_rebuild,
)
from tests.journals import MemoryJournal

SECONDS = 30.0
# One of each kind; the bench has them all.
SALVAGED = [
    damage
    for damage in DAMAGES
    if damage.name
    in {
        "pickle deleted",
        "header.bin overwritten",
        "length.bin overwritten",
        "link_lists.bin truncated",
        "segments of a collection gone",
    }
]
EMBEDDED = [
    damage
    for damage in DAMAGES
    if damage.name in {"segment folder deleted", "data_level0.bin truncated"}
]
LEFT = [d for d in DATABASE_DAMAGES if d.name in {"database header zeroed", "database emptied"}]


@pytest.mark.slow
@pytest.mark.parametrize("damage", SALVAGED, ids=str)
def test_an_index_is_built_anew_from_the_vectors_in_its_files(
    chroma_directory: ChromaDirectory, tmp_path: Path, damage: Damage
) -> None:
    before = contents(chroma_directory)
    damage.inflict(chroma_directory)
    target = local(chroma_directory)
    assert probe(target, SECONDS).failure_type == damage.failure_type

    journal = rebuild(target, tmp_path)

    assert probe(target, SECONDS).healthy
    after = contents(chroma_directory)
    lengths = "length.bin" not in damage.name
    assert is_alike(before["docs"], after["docs"], exact=lengths)
    assert is_alike(before["notes"], after["notes"])
    assert journal.notices == ["reload_collections"]
    assert chroma_directory.as_seen()["query"] == 1500


@pytest.mark.slow
@pytest.mark.parametrize("damage", EMBEDDED, ids=str)
def test_where_no_vector_is_left_the_documents_are_embedded_anew(
    chroma_directory: ChromaDirectory, tmp_path: Path, damage: Damage
) -> None:
    before = contents(chroma_directory)
    damage.inflict(chroma_directory)
    target = local(chroma_directory)
    with pytest.raises(VectorsLost, match="a snapshot is what can help") as caught:
        rebuild(target, tmp_path)
    assert not caught.value.transient
    assert list(chroma_directory.path.glob(".recovery*")) == []

    rebuild(target, tmp_path, **OWN)

    assert probe(target, SECONDS).healthy
    assert is_alike(before["docs"], contents(chroma_directory)["docs"])


@pytest.mark.parametrize("damage", LEFT, ids=str)
def test_a_damaged_database_is_left_to_the_snapshots(
    chroma_directory: ChromaDirectory, tmp_path: Path, damage: Damage
) -> None:
    damage.inflict(chroma_directory)

    with pytest.raises(RemedyError) as caught:
        rebuild(local(chroma_directory), tmp_path)

    assert type(caught.value) is RemedyError
    assert not caught.value.transient
    assert not any(chroma_directory.path.glob(".recovery*"))


@pytest.mark.parametrize("and_index", [False, True], ids=["records", "both"])
def test_a_collection_that_lost_its_records_is_left_to_the_snapshots_by_its_name(
    chroma_directory: ChromaDirectory, tmp_path: Path, and_index: bool
) -> None:
    scopes = "'METADATA', 'VECTOR'" if and_index else "'METADATA'"
    chroma_directory.change(
        f"DELETE FROM segments WHERE scope IN ({scopes}) AND collection ="
        " (SELECT id FROM collections WHERE name = 'docs')"
    )
    target = local(chroma_directory)
    assert probe(target, SECONDS).failure_type == "corrupted_metadata"

    with pytest.raises(RemedyError, match=r"records of docs any more.*a snapshot") as caught:
        rebuild(target, tmp_path)

    assert not caught.value.transient


def test_other_collections_stay_as_they_are_to_the_byte(
    chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    assert ask("add_saved", chroma_directory.path, name="other").returncode == 0
    old = chroma_directory.segment.name
    (chroma_directory.segment / "header.bin").unlink()
    before = digests(chroma_directory, {old})

    rebuild(local(chroma_directory), tmp_path)

    new = chroma_directory.segment.name
    assert new != old
    assert digests(chroma_directory, {old, new}) == before


def test_an_undo_brings_the_old_index_back_and_an_undo_of_nothing_newer_loses_nothing(
    chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    target = local(chroma_directory)
    old = chroma_directory.segment
    before = contents(chroma_directory)
    kept = rebuild(target, tmp_path, collection="docs").keep()
    assert chroma_directory.segment != old
    new = chroma_directory.segment
    assert (kept.entry().bytes or 0) > size_of(old) > 100_000
    # A write makes Chroma forget what of its log the new index holds.
    assert ask("add", chroma_directory.path, ids=["late"], seed=9).returncode == 0

    undo_rebuild(target, tmp_path)

    assert chroma_directory.segment == old
    assert (kept.entry().bytes or 0) > size_of(new) > 100_000
    assert kept.entry().summary == "the index that was built of docs"
    after = contents(chroma_directory)["docs"]
    assert after["records"].pop("late")
    assert is_alike(before["docs"], after)
    assert probe(target, SECONDS).healthy


def test_an_undo_never_loses_what_was_saved_since_unless_that_is_asked_for(
    chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    target = local(chroma_directory)
    rebuild(target, tmp_path, collection="docs")
    many = [f"late-{number}" for number in range(1_200)]
    assert ask("add", chroma_directory.path, ids=many, seed=9).returncode == 0
    new = chroma_directory.segment

    with pytest.raises(WouldOverwrite, match="only in its new index"):
        undo_rebuild(target, tmp_path)
    assert chroma_directory.segment == new

    undo_rebuild(target, tmp_path, overwrite=True)
    assert chroma_directory.segment != new
    assert new.is_dir()


def test_what_is_aside_goes_when_its_retention_ends(
    chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    target = local(chroma_directory)
    old = chroma_directory.segment
    rebuild(target, tmp_path, collection="docs")
    new = chroma_directory.segment

    discard_rebuild(target, tmp_path)
    discard_rebuild(target, tmp_path)

    assert not old.exists()
    assert new.is_dir()
    assert probe(target, SECONDS).healthy
    with pytest.raises(NotKept, match="is gone"):
        undo_rebuild(target, tmp_path)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("no_such_package.embedding:embed", "No module named 'no_such_package'"),
        ("tests.embeddings:missing", "AttributeError"),
        ("tests.embeddings:NO_FUNCTION", "is no function"),
        ("tests.embeddings:failing", "no network"),
        ("tests.embeddings:short", "gives 2 dimensions; the collection has 16"),
        ("tests.embeddings:other", "not the one that embedded this collection"),
        ("nomic", "cannot be had"),
        ("no such name", "Chroma knows no embedding function"),
    ],
)
def test_an_embedding_function_that_cannot_be_used_says_why(
    chroma_directory: ChromaDirectory, tmp_path: Path, function: str, why: str
) -> None:
    shutil.rmtree(chroma_directory.segment)

    with pytest.raises(EmbeddingUnavailable, match=why):
        rebuild(local(chroma_directory), tmp_path, embedding_functions={"*": function})

    assert not any(chroma_directory.path.glob(".recovery*"))


def test_an_embedding_function_gets_the_named_variables_and_no_other(
    chroma_directory: ChromaDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(chroma_directory.segment)
    monkeypatch.setenv("EMBEDDING_KEY", "key")
    keyed = {"*": "tests.embeddings:keyed"}

    with pytest.raises(EmbeddingUnavailable, match="EMBEDDING_KEY"):
        rebuild(local(chroma_directory), tmp_path, embedding_functions=keyed)
    rebuild(
        local(chroma_directory),
        tmp_path,
        embedding_functions=keyed,
        embedding_environment=["EMBEDDING_KEY"],
    )

    assert probe(local(chroma_directory), SECONDS).healthy


def test_a_lock_that_is_held_elsewhere_is_waited_for_and_no_longer(
    chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    (chroma_directory.segment / "header.bin").unlink()

    with (
        chroma_directory.locked(),
        pytest.raises(TargetUnreachable, match="locked") as caught,
    ):
        rebuild(local(chroma_directory), tmp_path, lock_patience=0.5)

    assert caught.value.transient
    rebuild(local(chroma_directory), tmp_path)
    assert probe(local(chroma_directory), SECONDS).healthy


def test_a_rehearsal_names_what_is_damaged_and_changes_nothing(
    chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    (chroma_directory.segment / "header.bin").unlink()
    before = digests(chroma_directory, set())
    journal = MemoryJournal(tmp_path, dry_run=True)

    rebuild(local(chroma_directory), tmp_path, journal=journal)

    assert digests(chroma_directory, set()) == before
    assert [step.text for step in journal.steps if step.planned] == [
        "docs: index built anew",
    ]
    assert not (tmp_path / "kept").exists()


def test_a_collection_that_is_asked_for_is_rebuilt_whatever_its_files_look_like(
    chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    before = chroma_directory.segment

    with pytest.raises(RemedyError, match="there is no collection 'gone'"):
        rebuild(local(chroma_directory), tmp_path, collection="gone")
    with pytest.raises(RemedyError, match="no index of the directory is damaged"):
        rebuild(local(chroma_directory), tmp_path)
    rebuild(local(chroma_directory), tmp_path, collection="docs")

    assert chroma_directory.segment != before


def test_a_collection_of_any_name_and_space_is_rebuilt(tmp_path: Path) -> None:
    """The settings are its own, the name has every character that a name may have."""
    directory = ChromaDirectory(tmp_path / "chroma")
    name = "0-aZ.9_" + "x" * 504 + "Z"
    made = ask("add_saved", directory.path, name=name, space="ip", max_neighbors=8)
    assert made.returncode == 0, made.stderr
    before = contents(directory)
    target = local(directory, collections={name: 1_000})
    with closing(sqlite3.connect(directory.database)) as database:
        (segment,) = database.execute("SELECT id FROM segments WHERE scope = 'VECTOR'").fetchone()
    truncate(directory.path / segment / "header.bin")
    assert not probe(target, SECONDS).healthy

    rebuild(target, tmp_path)

    assert probe(target, SECONDS).healthy
    assert is_alike(before[name], contents(directory)[name])


def test_a_truncated_index_without_its_pickle_says_what_is_missing(
    chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    truncate(chroma_directory.segment / "data_level0.bin")
    noise(chroma_directory.segment / "index_metadata.pickle")

    with pytest.raises(VectorsLost):
        rebuild(local(chroma_directory), tmp_path)


def test_an_index_of_deleted_records_alone_becomes_an_empty_one(
    chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    everything = [f"id-{number}" for number in range(COUNT)]
    assert ask("remove", chroma_directory.path, ids=everything).returncode == 0
    (chroma_directory.segment / "header.bin").unlink()

    rebuild(local(chroma_directory), tmp_path)

    assert contents(chroma_directory)["docs"]["records"] == {}
    assert ask("add", chroma_directory.path, ids=["one"], seed=1).returncode == 0
    assert len(contents(chroma_directory)["docs"]["records"]) == 1


def test_changes_that_only_the_log_knows_are_in_the_new_index(
    chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    assert ask("remove", chroma_directory.path, ids=["id-1", "id-2399"]).returncode == 0
    assert ask("add", chroma_directory.path, ids=["id-1"], seed=3).returncode == 0
    assert ask("update", chroma_directory.path, ids=["id-2", "gone"], seed=4).returncode == 0
    before = contents(chroma_directory)
    (chroma_directory.segment / "link_lists.bin").unlink()

    rebuild(local(chroma_directory), tmp_path)

    assert is_alike(before["docs"], contents(chroma_directory)["docs"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written_is_named(
    chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    (chroma_directory.segment / "header.bin").unlink()
    chroma_directory.path.chmod(0o500)

    with pytest.raises(RemedyError, match="may not be written"):
        rebuild(local(chroma_directory), tmp_path)

    chroma_directory.path.chmod(0o700)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, check=False).returncode != 0:
        pytest.skip("no right to mount a small file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("free_kb", [100, 1_800])
def test_a_disk_without_room_leaves_the_old_index_and_nothing_else(
    chroma_template: ChromaDirectory, small_disk: Path, tmp_path: Path, free_kb: int
) -> None:
    """Seen to be too small before anything is written, or found out while the index is built."""
    directory = chroma_template.copy(small_disk / "chroma")
    (directory.segment / "header.bin").unlink()
    before = digests(directory, set())
    room = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize
    (small_disk / "ballast").write_bytes(bytes(max(room - free_kb * 1024, 0)))

    with pytest.raises(NothingKept):
        rebuild(local(directory), tmp_path)

    assert digests(directory, set()) == before
    assert not any(directory.path.glob(".recovery*"))
    (small_disk / "ballast").unlink()
    if room > 3 * 1024 * 1024:
        rebuild(local(directory), tmp_path)
        assert probe(local(directory), SECONDS).healthy

"""``chromadb.index_rebuild`` of a server that is reached by its API alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recovery.components.chromadb.editing import ChromaEditor
from recovery.components.chromadb.probe import probe
from recovery.components.chromadb.rebuilding.copying import Copy
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import (
    EmbeddingUnavailable,
    OwnerChanged,
    RecordsUnreadable,
    RemedyError,
    TargetUnreachable,
    VectorsLost,
    WouldOverwrite,
)
from tests.chroma import (
    COUNT,
    DIMENSION,
    ChromaDirectory,
    ManagedChroma,
    ServedChroma,
    noise,
    truncate,
)
from tests.chroma_child import vectors
from tests.components.chromadb.rebuilds import OWN, discard_rebuild, rebuild, undo_rebuild
from tests.components.chromadb.serving import (
    SECONDS,
    beside,
    damaged,
    killed,
    names,
    unlinked,
)
from tests.journals import RECOVERY, MemoryJournal
from tests.waiting import until

ONE = {"ids": ["new"], "embeddings": [[1.0] * DIMENSION]}
OTHER = {"embedding_functions": {"*": "tests.embeddings:other"}}


@pytest.fixture
def target(
    chroma_server: ServedChroma, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ChromaTarget:
    """A server of which this host knows the URL alone."""
    monkeypatch.setenv("RECOVERY_STATE_DIR", str(tmp_path / "state"))
    return ChromaTarget(url=chroma_server.url, collections={"docs": COUNT}, answer_timeout=20)


@pytest.fixture
def editor(target: ChromaTarget) -> Iterator[ChromaEditor]:
    with ChromaEditor.of(target, SECONDS) as editor:
        yield editor


def found(target: ChromaTarget) -> str | None:
    return probe(target, SECONDS).failure_type


def read(editor: ChromaEditor, name: str, *ids: str) -> dict[str, list[float]]:
    got = editor.read_ids(names(editor)[name], ids, ("embeddings",))
    return dict(zip(got["ids"], got["embeddings"], strict=True))


def add(editor: ChromaEditor, name: str, identity: str, seed: int) -> None:
    said = {"ids": [identity], "embeddings": vectors(1, DIMENSION, seed), "documents": [identity]}
    editor.upsert(names(editor)[name], said)


def test_an_index_that_finds_nothing_is_built_anew_from_what_the_server_hands_out(
    chroma_server: ServedChroma, target: ChromaTarget, editor: ChromaEditor, tmp_path: Path
) -> None:
    damaged(chroma_server, unlinked)
    before = names(editor)
    old = editor.find("docs")
    assert old is not None
    assert found(target) == "index_incomplete"

    journal = rebuild(target, tmp_path)

    assert found(target) is None
    after = names(editor)
    (aside,) = beside(editor, "aside")
    assert after[aside] == before["docs"]
    assert {name: after[name] for name in ("notes", "empty")} == {
        name: before[name] for name in ("notes", "empty")
    }
    new = editor.find("docs")
    assert new is not None
    for key in ("configuration_json", "metadata", "schema", "dimension"):
        assert new[key] == old[key]
    got = editor.read_ids(new["id"], ["id-7"])
    assert (got["documents"], got["metadatas"]) == (["document 7"], [{"number": 7}])
    assert got["embeddings"][0] == pytest.approx(vectors(8, DIMENSION)[7], abs=1e-4)
    assert editor.count(new["id"]) == COUNT
    assert journal.notices == ["reload_collections"]
    assert [step.figures["percent"] for step in journal.steps if "percent" in step.figures]


def test_undo_and_the_end_of_the_retention(
    chroma_server: ServedChroma, target: ChromaTarget, editor: ChromaEditor, tmp_path: Path
) -> None:
    damaged(chroma_server, unlinked)
    before = names(editor)
    rebuild(target, tmp_path)
    add(editor, "docs", "since", 5)
    with pytest.raises(WouldOverwrite):
        undo_rebuild(target, tmp_path)

    undo_rebuild(target, tmp_path, overwrite=True)

    assert found(target) == "index_incomplete"
    (aside,) = beside(editor, "aside")
    assert names(editor) == {**before, aside: names(editor)[aside]}
    assert editor.count(names(editor)[aside]) == COUNT + 1
    undo_rebuild(target, tmp_path, of="undo", undo="third")
    assert found(target) is None
    for recovery in (RECOVERY, "undo", "third"):
        discard_rebuild(target, tmp_path, recovery)
    assert set(names(editor)) == set(before)
    assert editor.count(names(editor)["docs"]) == COUNT + 1


def test_what_is_written_while_it_is_copied_is_in_the_new_one(
    chroma_server: ServedChroma,
    target: ChromaTarget,
    editor: ChromaEditor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Added, changed in its vector alone, and deleted: after the first pass, and after the last."""
    damaged(chroma_server, unlinked)
    (old,) = [identity for name, identity in names(editor).items() if name == "docs"]
    passes = []
    catch_up = Copy.catch_up

    def observed(copy: Copy) -> int:
        changed = catch_up(copy)
        passes.append(changed)
        if len(passes) in (1, 3):
            written = {"ids": [f"late-{len(passes)}", "id-3"], "embeddings": vectors(2, 16, 5)}
            editor.upsert(old, written)
            editor.delete(old, [f"id-{10 + len(passes)}"])
        return changed

    monkeypatch.setattr(Copy, "catch_up", observed)

    journal = rebuild(target, tmp_path)

    assert passes[0] == COUNT
    assert passes[1:] == [3, 0, 2]
    assert any("in the last moment" in text for text in journal.texts)
    got = read(editor, "docs", "late-1", "late-3", "id-3", "id-11", "id-13")
    assert set(got) == {"late-1", "late-3", "id-3"}
    assert got["id-3"] == pytest.approx(vectors(2, 16, 5)[1], abs=1e-4)
    assert found(target) is None


@pytest.mark.parametrize("damage", ["folder", "pages"])
def test_where_vectors_are_missing_nothing_is_exchanged(
    chroma_server: ServedChroma,
    target: ChromaTarget,
    editor: ChromaEditor,
    tmp_path: Path,
    damage: str,
) -> None:
    damaged(
        chroma_server,
        lambda d: (
            shutil.rmtree(d.segment)
            if damage == "folder"
            else truncate(d.segment / "data_level0.bin")
        ),
    )
    before = names(editor)

    with pytest.raises(VectorsLost) as caught:
        rebuild(target, tmp_path)

    assert caught.value.facts["missing"] >= 1_000
    assert names(editor) == before
    assert MemoryJournal(tmp_path).keep().summary == ""


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda d: (d.segment / "header.bin").unlink(), "hnsw"),
        (lambda d: truncate(d.segment / "index_metadata.pickle"), "pickle"),
    ],
    ids=["header", "pickle"],
)
def test_what_the_server_refuses_altogether_is_said_in_its_own_words(
    chroma_server: ServedChroma,
    target: ChromaTarget,
    editor: ChromaEditor,
    tmp_path: Path,
    damage: Callable[[ChromaDirectory], object],
    said: str,
) -> None:
    """Not even documents are handed out, so that none can be embedded anew."""
    damaged(chroma_server, damage)
    before = names(editor)
    assert found(target) == "index_corrupted"

    with pytest.raises(RecordsUnreadable, match="only a snapshot can help") as caught:
        rebuild(target, tmp_path, **OWN)

    assert said in caught.value.facts["said"]
    assert caught.value.facts["said"] in caught.value.message
    assert caught.value.facts["collection"] == "docs"
    assert not caught.value.transient
    assert names(editor) == before
    assert MemoryJournal(tmp_path).keep().summary == ""


def test_what_is_wrong_and_is_no_index_is_said(
    chroma_server: ServedChroma, target: ChromaTarget, editor: ChromaEditor, tmp_path: Path
) -> None:
    damaged(chroma_server, lambda d: d.change("DELETE FROM segments WHERE scope = 'VECTOR'"))
    before = names(editor)
    assert found(target) == "corrupted_metadata"

    with pytest.raises(RemedyError, match=r"not for this remedy: .*Missing vector segment"):
        rebuild(target, tmp_path)

    assert names(editor) == before


def test_a_collection_that_was_replaced_while_it_was_copied_keeps_its_name(
    chroma_server: ServedChroma, target: ChromaTarget, editor: ChromaEditor, tmp_path: Path
) -> None:
    damaged(chroma_server, unlinked)
    (old,) = [one for one in editor.all() if one["name"] == "docs"]

    def replace() -> None:
        editor.drop("docs", old["id"])
        editor.upsert(editor.create("docs", old)["id"], ONE)

    journal = MemoryJournal(tmp_path, seconds=120).after("copied and found right", replace)

    with pytest.raises(OwnerChanged, match="docs was replaced while it was copied"):
        rebuild(target, tmp_path, journal=journal)

    assert editor.count(names(editor)["docs"]) == 1
    assert set(names(editor)) == {"docs", "notes", "empty"}


def test_documents_are_embedded_anew_where_the_policy_says_how(
    chroma_server: ServedChroma, target: ChromaTarget, editor: ChromaEditor, tmp_path: Path
) -> None:
    """The last 400 are in the log with their vectors; by them the function is known."""
    damaged(chroma_server, lambda d: shutil.rmtree(d.segment))
    before = names(editor)
    assert found(target) == "index_incomplete"
    with pytest.raises(EmbeddingUnavailable, match="not the one that embedded"):
        rebuild(target, tmp_path, **OTHER)
    assert names(editor) == before

    journal = rebuild(target, tmp_path, **OWN)

    assert found(target) is None
    figures = next(step.figures for step in journal.steps if "embedded anew" in step.text)
    # What is readable of a page with lost ones is embedded with them.
    assert 2_000 <= figures["records"] < 2_100
    assert figures["compared"] == 32
    assert read(editor, "docs", "id-7")["id-7"] == pytest.approx(vectors(8, DIMENSION)[7], abs=1e-4)


def test_lengths_that_were_lost_are_no_vectors(
    chroma_server: ServedChroma, target: ChromaTarget, editor: ChromaEditor, tmp_path: Path
) -> None:
    damaged(chroma_server, lambda d: truncate(d.segment / "length.bin"))

    with pytest.raises(VectorsLost):
        rebuild(target, tmp_path)

    assert set(names(editor)) == {"docs", "notes", "empty"}
    rebuild(target, tmp_path, **OWN)
    assert found(target) is None


def test_a_server_that_dies_of_its_index_is_started_and_its_vectors_are_lost(
    managed_chroma: ManagedChroma, tmp_path: Path
) -> None:
    target = managed_chroma.target(path=None, answer_timeout=20)
    noise(managed_chroma.directory.segment / "data_level0.bin")
    managed_chroma.process.restart(10)
    until(managed_chroma.served.answers, seconds=60, what="it answers")
    assert found(target) == "index_corrupted"
    assert not managed_chroma.process.inspect().running

    with pytest.raises(VectorsLost, match="does not survive reading it"):
        rebuild(target, tmp_path)

    with ChromaEditor.of(target, SECONDS) as editor:
        assert set(names(editor)) == {"docs", "notes", "empty"}


def test_a_collection_that_is_well_is_copied_only_by_its_name(
    target: ChromaTarget, editor: ChromaEditor, tmp_path: Path
) -> None:
    with pytest.raises(RemedyError, match="no index of the server's collections is damaged"):
        rebuild(target, tmp_path)
    with pytest.raises(RemedyError, match="there is no collection 'nothing'"):
        rebuild(target, tmp_path, collection="nothing")
    before = names(editor)

    rebuild(target, tmp_path, collection="notes")

    assert editor.count(names(editor)["notes"]) == 3
    assert names(editor)["notes"] != before["notes"]


def test_a_rehearsal_makes_nothing(
    chroma_server: ServedChroma, target: ChromaTarget, editor: ChromaEditor, tmp_path: Path
) -> None:
    damaged(chroma_server, unlinked)
    before = names(editor)

    journal = rebuild(target, tmp_path, journal=MemoryJournal(tmp_path, dry_run=True, seconds=60))

    assert [step.text for step in journal.steps if step.planned] == [
        "docs: copied into a new collection"
    ]
    assert names(editor) == before


def test_a_server_that_is_away_is_said_to_be(
    chroma_server: ServedChroma, target: ChromaTarget, tmp_path: Path
) -> None:
    chroma_server.kill()

    with pytest.raises(TargetUnreachable, match="no runtime to start it with"):
        rebuild(target, tmp_path)


@pytest.mark.kill
@pytest.mark.parametrize("moment", ["filled", "aside"])
def test_killed_anywhere_the_next_run_completes(
    chroma_server: ServedChroma,
    target: ChromaTarget,
    editor: ChromaEditor,
    tmp_path: Path,
    moment: str,
) -> None:
    damaged(chroma_server, unlinked)
    before = names(editor)
    killed(lambda: rebuild(target, tmp_path), moment)
    wanted = "index_incomplete" if moment == "filled" else "collection_missing"
    assert found(target) == wanted

    rebuild(target, tmp_path)

    assert found(target) is None
    (aside,) = beside(editor, "aside")
    assert names(editor)[aside] == before["docs"]
    assert set(names(editor)) == {"docs", "notes", "empty", aside}
    assert editor.count(names(editor)["docs"]) == COUNT

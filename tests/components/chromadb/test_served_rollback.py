"""``chromadb.snapshot_rollback`` of a server that is reached by its API alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from recovery.components.chromadb.editing import ChromaEditor, Records
from recovery.components.chromadb.probe import light, probe
from recovery.components.chromadb.rollback_undo import discard, undo
from recovery.components.chromadb.snapshot_rollback import (
    RollbackScope,
    SnapshotRollback,
    snapshot_rollback,
)
from recovery.components.chromadb.snapshots import taking
from recovery.components.chromadb.target import ChromaTarget, SnapshotSettings
from recovery.errors import (
    NoSnapshot,
    NotKept,
    RemedyError,
    StillUnhealthy,
    TargetUnreachable,
    WouldOverwrite,
)
from tests.chroma import (
    COUNT,
    DIMENSION,
    INDEX_DAMAGES,
    ChromaDirectory,
    Damage,
    ManagedChroma,
    ServedChroma,
    noise,
    truncate,
)
from tests.chroma_child import vectors
from tests.components.chromadb.rebuilds import rebuild
from tests.components.chromadb.serving import SECONDS, beside, damaged, killed, names
from tests.journals import RECOVERY, MemoryJournal
from tests.waiting import until

REF = "chromadb/default"
LOADS_NOT = tuple(
    damage
    for damage in INDEX_DAMAGES
    if damage.name in ("pickle truncated", "segment folder deleted")
)


@pytest.fixture(scope="session")
def export_template(
    chroma_template: ChromaDirectory, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """One verified export of the healthy server; never broken itself, only copied."""
    place = tmp_path_factory.mktemp("export")
    server = ServedChroma(chroma_template.copy(place / "chroma")).start()
    target = ChromaTarget(url=server.url, snapshots={"directory": place / "snapshots"})
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RECOVERY_STATE_DIR", str(place / "state"))
            taking.take(target, REF)
    finally:
        server.stop()
    return place / "snapshots"


@pytest.fixture
def target(
    chroma_server: ServedChroma,
    export_template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> ChromaTarget:
    """A server of which this host knows the URL alone, and one export of it."""
    monkeypatch.setenv("RECOVERY_STATE_DIR", str(tmp_path / "state"))
    shutil.copytree(export_template, tmp_path / "snapshots")
    return ChromaTarget(
        url=chroma_server.url,
        collections={"docs": COUNT},
        snapshots={"directory": tmp_path / "snapshots"},
        answer_timeout=20,
    )


@pytest.fixture
def editor(target: ChromaTarget) -> Iterator[ChromaEditor]:
    with ChromaEditor.of(target, SECONDS) as editor:
        yield editor


def journal_of(state: Path, **said: Any) -> MemoryJournal:
    return MemoryJournal(state, **{"seconds": SECONDS, **said})


def rollback(
    target: ChromaTarget, state: Path, *, scope: dict[str, str] | None = None, **said: Any
) -> MemoryJournal:
    parameters = SnapshotRollback(salvage=said.pop("salvage", False))
    journal = said.pop("journal", None) or journal_of(state, **said)
    journal.scope = RollbackScope(**(scope or {}))
    assert snapshot_rollback.remedy is not None
    snapshot_rollback.remedy(target, parameters, journal)
    return journal


def back(target: ChromaTarget, state: Path, **said: Any) -> MemoryJournal:
    of, own = said.pop("of", RECOVERY), said.pop("own", "undo")
    journal = journal_of(state, recovery_id=own, **said)
    undo(target, SnapshotRollback(), journal, MemoryJournal(state, recovery_id=of).keep())
    return journal


def well(target: ChromaTarget) -> bool:
    return probe(target, SECONDS).healthy


@pytest.mark.parametrize("damage", LOADS_NOT, ids=str)
def test_a_collection_that_cannot_be_searched_is_the_one_of_the_export_again(
    chroma_server: ServedChroma,
    target: ChromaTarget,
    editor: ChromaEditor,
    tmp_path: Path,
    damage: Damage,
) -> None:
    damaged(chroma_server, damage.inflict)
    before = names(editor)
    assert probe(target, SECONDS).failure_type == damage.failure_type

    journal = rollback(target, tmp_path)

    assert well(target)
    after = names(editor)
    assert {name: after[name] for name in ("notes", "empty")} == {
        name: before[name] for name in ("notes", "empty")
    }
    (aside,) = beside(editor, "aside")
    assert after[aside] == before["docs"]
    assert journal.notices == ["reload_collections"]
    figures = next(step.figures for step in journal.steps if step.text == "rolled back")
    assert (figures["collections"], figures["records"]) == ("docs", COUNT)
    restored = editor.find("docs")
    assert restored is not None
    assert restored["metadata"] == {"owner": "tests"}
    assert restored["configuration_json"]["hnsw"]["space"] == "cosine"
    got = editor.read_ids(restored["id"], ["id-7"])
    assert (got["documents"], got["metadatas"]) == (["document 7"], [{"number": 7}])
    assert got["embeddings"][0] == pytest.approx(vectors(8, DIMENSION)[7], abs=1e-4)
    entry = journal.keep().entry()
    assert (entry.summary, entry.bytes) == ("the collection from before of docs", None)


def test_undo_brings_the_damaged_one_back_and_discarding_deletes_what_is_not_used(
    chroma_server: ServedChroma, target: ChromaTarget, editor: ChromaEditor, tmp_path: Path
) -> None:
    damaged(chroma_server, lambda d: (d.segment / "header.bin").unlink())
    before = names(editor)
    rollback(target, tmp_path)

    back(target, tmp_path)

    assert names(editor)["docs"] == before["docs"]
    assert not well(target)
    assert len(beside(editor, "aside")) == 1
    for recovery in (RECOVERY, "undo"):
        kept = MemoryJournal(tmp_path, recovery_id=recovery).keep()
        discard(target, SnapshotRollback(), kept)
    assert names(editor) == before


def test_an_undo_is_kept_under_its_own_id_and_can_be_undone(
    chroma_server: ServedChroma, target: ChromaTarget, editor: ChromaEditor, tmp_path: Path
) -> None:
    damaged(chroma_server, lambda d: (d.segment / "header.bin").unlink())
    before = names(editor)
    rollback(target, tmp_path)
    restored = names(editor)["docs"]
    undone = back(target, tmp_path)
    assert not well(target)
    assert undone.keep().entry().summary == "collections from before the undo: docs"
    discard(target, SnapshotRollback(), MemoryJournal(tmp_path).keep())
    assert restored in names(editor).values(), "the undo's retention has just begun"

    back(target, tmp_path, of="undo", own="third")

    assert well(target)
    after = names(editor)
    (aside,) = beside(editor, "aside")
    assert (after["docs"], after[aside]) == (restored, before["docs"])
    discard(target, SnapshotRollback(), undone.keep())
    assert names(editor) == after


def test_when_its_retention_is_over_the_damaged_one_is_deleted(
    chroma_server: ServedChroma, target: ChromaTarget, editor: ChromaEditor, tmp_path: Path
) -> None:
    damaged(chroma_server, lambda d: (d.segment / "header.bin").unlink())
    rollback(target, tmp_path)

    for _ in range(2):
        discard(target, SnapshotRollback(), MemoryJournal(tmp_path).keep())

    assert set(names(editor)) == {"docs", "notes", "empty"}
    assert well(target)
    with pytest.raises(NotKept):
        back(target, tmp_path)


def test_what_was_written_since_the_rollback_is_not_given_up_unasked(
    chroma_server: ServedChroma, target: ChromaTarget, editor: ChromaEditor, tmp_path: Path
) -> None:
    damaged(chroma_server, lambda d: (d.segment / "header.bin").unlink())
    rollback(target, tmp_path)
    editor.upsert(names(editor)["docs"], {"ids": ["since"], "embeddings": [[1.0] * DIMENSION]})

    with pytest.raises(WouldOverwrite):
        back(target, tmp_path)

    assert well(target)
    back(target, tmp_path, overwrite=True)
    (aside,) = beside(editor, "aside")
    assert editor.count(names(editor)[aside]) == COUNT + 1


def test_a_server_that_lost_everything_gets_all_of_it_back(
    chroma_server: ServedChroma, target: ChromaTarget, editor: ChromaEditor, tmp_path: Path
) -> None:
    damaged(chroma_server, lambda d: truncate(d.database, 0))
    assert probe(target, SECONDS).failure_type == "database_missing"

    rollback(target, tmp_path)

    assert well(target)
    assert set(names(editor)) == {"docs", "notes", "empty"}
    back(target, tmp_path)
    assert set(beside(editor, "aside")) == set(names(editor))
    back(target, tmp_path, of="undo", own="third")
    assert well(target)


@pytest.mark.parametrize("expected", [{}, {"docs": COUNT}], ids=["nothing", "docs"])
@pytest.mark.parametrize("what", ["database", "tenant"])
def test_a_database_that_the_server_lost_is_made_anew_with_all_it_held(
    chroma_server: ServedChroma,
    target: ChromaTarget,
    tmp_path: Path,
    what: str,
    expected: dict[str, int],
) -> None:
    place = {"tenant": "people", "database": "archive"}
    theirs = target.model_copy(update={**place, "collections": expected})
    with ChromaEditor.of(theirs, SECONDS) as editor, ChromaEditor.of(target, SECONDS) as other:
        editor.make_database(**place)
        docs = editor.create("docs", {"metadata": {"owner": "people"}})
        page = other.read(names(other)["docs"], 0, COUNT)
        editor.upsert(docs["id"], page)
        taking.take(theirs, REF)
        lose(chroma_server, what)
        found = [look(theirs, SECONDS) for look in (probe, light)]
        assert {one.failure_type for one in found} == {"database_missing"}
        assert {one.summary for one in found} == {"there is no database archive of a tenant people"}
        with pytest.raises(RemedyError, match="archive"):
            rebuild(theirs, tmp_path / "rebuild")

        rehearsed = rollback(theirs, tmp_path / "rehearsed", dry_run=True)
        assert any("made anew" in step.text for step in rehearsed.steps if step.planned)
        assert probe(theirs, SECONDS).failure_type == "database_missing"
        journal = rollback(theirs, tmp_path)

        assert "database archive of tenant people made anew" in journal.texts
        assert well(theirs)
        assert editor.read_ids(names(editor)["docs"], ["id-7"]) == page_of(page, "id-7")
        assert well(target)


def lose(server: ServedChroma, what: str) -> None:
    if what == "database":
        httpx.delete(f"{server.url}/api/v2/tenants/people/databases/archive").raise_for_status()
        return
    server.stop()
    server.directory.change("DELETE FROM databases WHERE tenant_id = 'people'")
    server.directory.change("DELETE FROM tenants WHERE id = 'people'")
    server.start()


def page_of(page: Records, name: str) -> Records:
    row = page["ids"].index(name)
    return {column: [values[row]] for column, values in page.items()}


def test_a_healthy_collection_is_taken_back_only_by_its_name(
    target: ChromaTarget, editor: ChromaEditor, tmp_path: Path
) -> None:
    editor.upsert(names(editor)["notes"], {"ids": ["newer"], "embeddings": [[1.0] * 8]})

    with pytest.raises(RemedyError, match="nothing that snapshot"):
        rollback(target, tmp_path)
    with pytest.raises(NoSnapshot, match="no collection 'nothing'"):
        rollback(target, tmp_path, scope={"collection": "nothing"})
    assert set(names(editor)) == {"docs", "notes", "empty"}

    rollback(target, tmp_path, scope={"collection": "notes"})

    assert editor.count(names(editor)["notes"]) == 3
    (aside,) = beside(editor, "aside")
    assert editor.count(names(editor)[aside]) == 4


def test_what_is_newer_and_readable_is_carried_over_where_the_policy_says_so(
    chroma_server: ServedChroma, target: ChromaTarget, editor: ChromaEditor, tmp_path: Path
) -> None:
    """Records that are only in the log can be read although the index is gone."""
    damaged(chroma_server, lambda d: shutil.rmtree(d.segment))
    editor.upsert(
        names(editor)["docs"],
        {"ids": ["newer"], "embeddings": [[1.0] * DIMENSION], "documents": ["newer"]},
    )

    journal = rollback(target, tmp_path, salvage=True)

    docs = names(editor)["docs"]
    assert editor.count(docs) == COUNT + 1
    assert editor.read_ids(docs, ["newer"])["documents"] == ["newer"]
    assert any("carried over" in text for text in journal.texts)


def test_a_rehearsal_says_what_would_be_restored_and_makes_nothing(
    chroma_server: ServedChroma, target: ChromaTarget, editor: ChromaEditor, tmp_path: Path
) -> None:
    damaged(chroma_server, lambda d: (d.segment / "header.bin").unlink())
    before = names(editor)

    journal = rollback(target, tmp_path, dry_run=True)

    assert [step.text for step in journal.steps if step.planned] == [
        "docs: restored beside the old one",
        "docs: new collection in place of the old one",
    ]
    assert names(editor) == before


def test_snapshots_of_a_directory_cannot_be_sent_to_a_server(
    target: ChromaTarget, snapshot_template: Path, tmp_path: Path
) -> None:
    shutil.copytree(snapshot_template, tmp_path / "directories")
    other = SnapshotSettings(directory=tmp_path / "directories")

    with pytest.raises(NoSnapshot, match="no verified export"):
        rollback(target.model_copy(update={"snapshots": other}), tmp_path)


def test_a_server_that_does_not_answer_is_left_as_it_is(
    chroma_server: ServedChroma, target: ChromaTarget, tmp_path: Path
) -> None:
    chroma_server.kill()

    with pytest.raises(TargetUnreachable):
        rollback(target, tmp_path)


def test_a_collection_that_ends_the_server_is_restored_once_that_is_back(
    managed_chroma: ManagedChroma, export_template: Path, tmp_path: Path
) -> None:
    shutil.copytree(export_template, tmp_path / "snapshots")
    snapshots = {"directory": tmp_path / "snapshots"}
    target = managed_chroma.target(path=None, answer_timeout=20, snapshots=snapshots)
    noise(managed_chroma.directory.segment / "data_level0.bin")
    managed_chroma.process.restart(10)
    until(managed_chroma.served.answers, seconds=60, what="it answers")
    assert probe(target, SECONDS).failure_type == "index_corrupted"

    journal = rollback(target, tmp_path)

    assert well(target)
    assert journal.texts.count("the server ended") == 2, "twice, since once may be anything"


def test_a_server_that_is_only_slow_is_not_taken_back(
    chroma_server: ServedChroma, target: ChromaTarget, editor: ChromaEditor, tmp_path: Path
) -> None:
    before = names(editor)
    with chroma_server.directory.locked(), pytest.raises(RemedyError) as caught:
        rollback(target, tmp_path, seconds=10)

    assert caught.value.code in ("target_unreachable", "deadline_exceeded")
    assert names(editor) == before
    assert well(target)


def test_what_is_not_as_it_was_stored_never_gets_the_name(
    chroma_server: ServedChroma,
    target: ChromaTarget,
    editor: ChromaEditor,
    tmp_path: Path,
) -> None:
    """Somebody writes into the new collection before it is compared."""
    damaged(chroma_server, lambda d: (d.segment / "header.bin").unlink())
    before = names(editor)

    def disturb() -> None:
        (new,) = beside(editor, "new")
        editor.delete(names(editor)[new], ["id-1"])

    class Disturbed(MemoryJournal):
        def progress(self, text: str, percent: int) -> None:
            if percent == 100:
                disturb()

    with pytest.raises(StillUnhealthy, match="not what the snapshot holds"):
        rollback(target, tmp_path, journal=Disturbed(tmp_path, seconds=SECONDS))

    assert names(editor) == before


@pytest.mark.kill
@pytest.mark.parametrize("moment", ["filled", "aside"])
def test_killed_anywhere_the_next_attempt_completes(
    chroma_server: ServedChroma,
    target: ChromaTarget,
    editor: ChromaEditor,
    tmp_path: Path,
    moment: str,
) -> None:
    damaged(chroma_server, lambda d: (d.segment / "header.bin").unlink())
    before = names(editor)
    killed(lambda: rollback(target, tmp_path), moment)
    found = probe(target, SECONDS)
    assert found.failure_type == ("index_corrupted" if moment == "filled" else "collection_missing")
    assert ("docs" in names(editor)) is (moment == "filled")

    rollback(target, tmp_path)

    assert well(target)
    after = names(editor)
    (aside,) = beside(editor, "aside")
    assert after[aside] == before["docs"]
    assert set(after) == {"docs", "notes", "empty", aside}


def test_a_directory_is_not_taken_back_in_part(directory_target: ChromaTarget) -> None:
    with pytest.raises(RemedyError, match="goes back whole"):
        rollback(directory_target, Path(), scope={"collection": "docs"})

"""``chromadb.collection_reload`` where files and memory differ, and where only the files count."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recovery.components.chromadb.collection_reload import ReloadScope, collection_reload
from recovery.components.chromadb.probe import probe
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import NotConfigured, RemedyError, TargetUnreachable
from recovery.strategy import Parameters
from tests.chroma import COUNT, ChromaDirectory, ManagedChroma, ServedChroma, ask, noise
from tests.journals import MemoryJournal

SECONDS = 60.0


def reload(target: ChromaTarget, *, collection: str | None = None, **said: Any) -> MemoryJournal:
    journal = MemoryJournal(seconds=120, **said)
    journal.scope = ReloadScope(collection=collection)
    assert collection_reload.remedy is not None
    collection_reload.remedy(target, Parameters(), journal)
    return journal


def replaced_by(directory: ChromaDirectory, other: ChromaDirectory) -> None:
    """As a restore does it: the folder is exchanged by its name."""
    directory.path.rename(directory.path.with_name("before"))
    other.path.rename(directory.path)


def test_a_directory_is_opened_anew_and_its_applications_are_told(
    chroma_directory: ChromaDirectory,
) -> None:
    journal = reload(ChromaTarget(path=chroma_directory.path, collections={"docs": 1}))

    assert journal.notices == ["reload_collections"]
    assert journal.steps[0].figures["found_themselves"]


def test_what_is_not_on_the_disk_cannot_be_opened(chroma_directory: ChromaDirectory) -> None:
    with pytest.raises(RemedyError, match="gone: not there"):
        reload(ChromaTarget(path=chroma_directory.path, collections={"gone": 1}))
    with pytest.raises(RemedyError, match="gone: not there"):
        reload(ChromaTarget(path=chroma_directory.path), collection="gone")
    with pytest.raises(RemedyError, match="empty holds 0 records"):
        reload(ChromaTarget(path=chroma_directory.path), collection="empty")

    noise(chroma_directory.segment / "data_level0.bin")
    with pytest.raises(RemedyError, match="the files themselves are not well") as caught:
        reload(ChromaTarget(path=chroma_directory.path))
    assert not caught.value.transient


def test_a_server_that_is_well_is_asked_and_not_restarted(managed_chroma: ManagedChroma) -> None:
    before = managed_chroma.process.inspect().id

    journal = reload(managed_chroma.target(), collection="docs")

    assert journal.notices == ["reload_collections"]
    assert managed_chroma.process.inspect().id == before


@pytest.fixture
def blind_chroma(
    chroma_template: ChromaDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ManagedChroma]:
    """A server that never finds its way to a directory put in its own one's place."""
    monkeypatch.setenv("RECOVERY_STATE_DIR", str(tmp_path / "state"))
    directory = chroma_template.copy(tmp_path / "place" / "chroma")
    managed = ManagedChroma(directory, from_within=True).start()
    yield managed
    managed.kill()


def with_one_more(template: ChromaDirectory, path: Path) -> ChromaDirectory:
    newer = template.copy(path)
    assert ask("add", newer.path, ids=["newer"], seed=1).returncode == 0
    return newer


def test_a_server_that_answers_from_a_directory_that_was_replaced_is_restarted(
    blind_chroma: ManagedChroma, chroma_template: ChromaDirectory, tmp_path: Path
) -> None:
    newer = with_one_more(chroma_template, tmp_path / "newer" / "chroma")
    replaced_by(ChromaDirectory(tmp_path / "place"), ChromaDirectory(newer.path.parent))
    target = blind_chroma.target(collections={"docs": COUNT + 1})
    assert probe(target, SECONDS).failure_type == "data_corruption"
    with pytest.raises(NotConfigured, match="runtime"):
        reload(target.model_copy(update={"runtime": None}))

    journal = reload(target)

    assert "server started" in journal.texts
    assert probe(target, SECONDS).healthy


def test_a_server_that_still_holds_a_database_that_was_replaced_is_restarted(
    managed_chroma: ManagedChroma, chroma_template: ChromaDirectory, tmp_path: Path
) -> None:
    """Whichever it answers from: its pool leads to the one or, where it opens anew, the other."""
    newer = with_one_more(chroma_template, tmp_path / "newer" / "chroma")
    replaced_by(managed_chroma.directory, newer)

    journal = reload(managed_chroma.target(collections={"docs": COUNT + 1}))

    assert [step.figures["why"] for step in journal.steps if "why" in step.figures] == [
        "the server has a database open that was replaced meanwhile"
    ]
    assert "server started" in journal.texts
    assert probe(managed_chroma.target(collections={"docs": COUNT + 1}), SECONDS).healthy


def test_a_server_that_remembers_a_better_index_than_its_disk_is_not_made_to_forget_it(
    managed_chroma: ManagedChroma,
) -> None:
    assert probe(managed_chroma.target(), SECONDS).healthy
    noise(managed_chroma.directory.segment / "data_level0.bin")
    before = managed_chroma.process.inspect().id

    with pytest.raises(RemedyError, match="the files themselves are not well"):
        reload(managed_chroma.target())

    assert managed_chroma.process.inspect().id == before


def test_a_server_that_came_up_on_a_lost_database_is_restarted_once_it_is_back(
    managed_chroma: ManagedChroma, tmp_path: Path
) -> None:
    """It goes on with the new, empty one that it made, whatever is put there afterwards."""
    directory = managed_chroma.directory
    managed_chroma.kill()
    shutil.move(directory.database, tmp_path / "lost.sqlite3")
    managed_chroma.start()
    target = managed_chroma.target()
    assert probe(target, SECONDS).failure_type in ("database_missing", "collection_missing")
    shutil.move(tmp_path / "lost.sqlite3", directory.database)

    reload(target)

    assert probe(target, SECONDS).healthy


def test_a_server_that_is_away_may_come_back(chroma_server: ServedChroma) -> None:
    chroma_server.kill()

    with pytest.raises(TargetUnreachable, match="no runtime to start it with") as caught:
        reload(ChromaTarget(url=chroma_server.url))

    assert caught.value.transient


def test_a_server_whose_process_was_killed_is_started_on_files_that_are_well(
    managed_chroma: ManagedChroma,
) -> None:
    target = managed_chroma.target(answer_timeout=10)
    managed_chroma.kill()
    assert probe(target, SECONDS).failure_type == "connection_error"
    assert "server started" in planned(reload(target, dry_run=True))
    assert not managed_chroma.process.inspect().running

    journal = reload(target)

    assert journal.notices == ["reload_collections"]
    assert probe(target, SECONDS).healthy


def test_a_killed_server_is_not_started_on_a_database_that_is_gone(
    managed_chroma: ManagedChroma, tmp_path: Path
) -> None:
    """It would make a new, empty one, and applications would write into that."""
    managed_chroma.kill()
    shutil.move(managed_chroma.directory.database, tmp_path / "lost.sqlite3")

    with pytest.raises(RemedyError, match="the files themselves are not well"):
        reload(managed_chroma.target())

    assert not managed_chroma.process.inspect().running


def planned(journal: MemoryJournal) -> list[str]:
    return [step.text for step in journal.steps if step.planned]


def test_a_rehearsal_restarts_nothing(
    managed_chroma: ManagedChroma, chroma_template: ChromaDirectory, tmp_path: Path
) -> None:
    replaced_by(managed_chroma.directory, chroma_template.copy(tmp_path / "newer" / "chroma"))
    before = managed_chroma.process.inspect().id

    journal = reload(managed_chroma.target(), dry_run=True)

    assert planned(journal) == ["server stopped", "server started"]
    assert managed_chroma.process.inspect().id == before

"""Folders that deleted collections left: found by the probe, removed on request, brought back."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from recovery.components.chromadb.orphan_removal import (
    OrphanRemoval,
    discard,
    orphan_removal,
    undo,
)
from recovery.components.chromadb.probe import probe
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import NotKept, RemedyError
from tests.chroma import ChromaDirectory, ask, start_anew
from tests.journals import MemoryJournal

SECONDS = 60.0
OLD = OrphanRemoval(older_than=0.001)


@pytest.fixture
def target(
    chroma_directory: ChromaDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ChromaTarget:
    monkeypatch.setenv("RECOVERY_STATE_DIR", str(tmp_path / "state"))
    return ChromaTarget(path=chroma_directory.path)


def test_folders_of_deleted_collections_are_found_removed_and_brought_back(
    target: ChromaTarget, chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    orphan = chroma_directory.segment
    before = sorted(file.name for file in orphan.iterdir())
    assert "orphan_folders" not in probe(target, SECONDS).figures
    assert ask("delete", chroma_directory.path, name="docs").returncode == 0
    report = probe(target, SECONDS)
    assert report.healthy
    assert report.figures["orphan_folders"] == 1

    young = MemoryJournal(tmp_path, recovery_id="young", seconds=SECONDS)
    orphan_removal.remedy(target, OrphanRemoval(older_than=3600), young)
    assert orphan.is_dir()
    rehearsal = MemoryJournal(tmp_path, recovery_id="dry", seconds=SECONDS, dry_run=True)
    orphan_removal.remedy(target, OLD, rehearsal)
    assert orphan.is_dir()
    journal = MemoryJournal(tmp_path, seconds=SECONDS)
    orphan_removal.remedy(target, OLD, journal)

    assert not orphan.exists()
    assert "orphan_folders" not in probe(target, SECONDS).figures
    undo(target, OLD, MemoryJournal(tmp_path, recovery_id="undo"), journal.keep())
    assert sorted(file.name for file in orphan.iterdir()) == before
    undo(target, OLD, MemoryJournal(tmp_path, recovery_id="twice"), journal.keep())
    orphan_removal.remedy(target, OLD, journal)
    discard(target, OLD, journal.keep())
    with pytest.raises(NotKept, match="not in"):
        undo(target, OLD, MemoryJournal(tmp_path, recovery_id="late"), journal.keep())


def test_a_database_that_was_emptied_makes_no_orphan_of_every_index(
    target: ChromaTarget, chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    segment = chroma_directory.segment
    start_anew(chroma_directory)
    long_ago = time.time() - 10
    for file in (segment, *segment.iterdir()):
        os.utime(file, (long_ago, long_ago))

    with pytest.raises(RemedyError, match="which folders are in use"):
        orphan_removal.remedy(target, OLD, MemoryJournal(tmp_path, seconds=SECONDS))

    assert segment.is_dir()

"""What is newer than the snapshot and still readable comes along, where the policy wants it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from recovery.components.chromadb.probe import probe
from recovery.components.chromadb.snapshot_rollback import SnapshotRollback, snapshot_rollback
from recovery.components.chromadb.target import ChromaTarget
from tests.chroma import COUNT, ChromaDirectory, ask, overwrite, remove
from tests.journals import MemoryJournal

SECONDS = 100.0


def carried(target: ChromaTarget, folder: Path, name: str) -> dict[str, Any]:
    journal = MemoryJournal(folder, recovery_id=name, seconds=SECONDS)
    snapshot_rollback.remedy(target, SnapshotRollback(salvage=True), journal)
    return {step.text: dict(step.figures) for step in journal.steps}


def late(directory: ChromaDirectory) -> dict[str, Any]:
    """The record that was added after the snapshot, as an application sees it."""
    done = ask("one", directory.path, name="late")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_what_is_newer_than_the_snapshot_and_readable_is_carried_over_where_the_policy_says_so(
    directory_target: ChromaTarget, chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    assert ask("add_one", chroma_directory.path, dimension=16).returncode == 0
    before = late(chroma_directory)
    remove("header.bin")(chroma_directory)
    damaged = chroma_directory.copy(tmp_path / "again" / "chroma")

    said = carried(directory_target, tmp_path, "with")

    assert said["carried over what is newer than the snapshot"]["records"] == 1
    assert late(chroma_directory) == before
    assert chroma_directory.as_seen()["count"] == COUNT + 1
    assert probe(directory_target, SECONDS).healthy

    shutil.rmtree(chroma_directory.path)
    damaged.copy(chroma_directory.path)
    journal = MemoryJournal(tmp_path, recovery_id="without", seconds=SECONDS)
    snapshot_rollback.remedy(directory_target, SnapshotRollback(), journal)
    assert chroma_directory.as_seen()["count"] == COUNT


@pytest.mark.parametrize("harm", ["unreadable", "gone"])
def test_a_directory_of_which_nothing_can_be_read_is_rolled_back_all_the_same(
    directory_target: ChromaTarget, chroma_directory: ChromaDirectory, tmp_path: Path, harm: str
) -> None:
    if harm == "gone":
        chroma_directory.database.unlink()
    else:
        overwrite(chroma_directory.database, bytes(100))

    said = carried(directory_target, tmp_path, harm)

    assert said["nothing newer was carried over"]["why"]
    assert chroma_directory.as_seen()["count"] == COUNT
    assert probe(directory_target, SECONDS).healthy

"""Snapshots beside repairs of one directory: none spoils the other, and none waits for ever."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from recovery.components.chromadb import exclusive
from recovery.components.chromadb.index_rebuild import IndexRebuild, RebuildScope, index_rebuild
from recovery.components.chromadb.orphan_removal import OrphanRemoval, orphan_removal
from recovery.components.chromadb.probe import probe
from recovery.components.chromadb.rebuilding import work
from recovery.components.chromadb.snapshot_rollback import SnapshotRollback, snapshot_rollback
from recovery.components.chromadb.snapshots import copying, taking, verifying
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import TargetBusy
from tests.chroma import COUNT, ROOT, ChromaDirectory, noise
from tests.journals import MemoryJournal

REF = "chromadb/default"
SECONDS = 300.0

# In a process of its own: what closes a database gives away the locks of its whole process.
SNAPSHOTS = """
import json, sys
from pathlib import Path
from recovery.components.chromadb.snapshots import taking
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import TargetBusy
path, directory = map(Path, sys.argv[1:3])
target = ChromaTarget(path=path, collections={"docs": int(sys.argv[3])},
                      snapshots={"directory": directory, "keep": 50})
print("begun", flush=True)
while not (directory.parent / "enough").exists():
    try:
        made = taking.take(target, "chromadb/default")
    except TargetBusy:
        continue
    print(json.dumps([made.name, made.records]), flush=True)
"""


def rebuild(target: ChromaTarget, journal: MemoryJournal) -> MemoryJournal:
    """Of an index that is well too, since it is named."""
    journal.scope = RebuildScope(collection="docs")
    assert index_rebuild.remedy is not None
    index_rebuild.remedy(target, IndexRebuild(lock_patience=60), journal)
    return journal


def while_it(
    monkeypatch: pytest.MonkeyPatch, place: Any, name: str, action: Callable[[], object]
) -> None:
    """Something happens in the world once, at the beginning of a call."""
    done: list[bool] = []
    known = getattr(place, name)

    def also(*arguments: Any, **said: Any) -> Any:
        if not done:
            done.append(True)
            action()
        return known(*arguments, **said)

    monkeypatch.setattr(place, name, also)


def test_snapshots_that_are_taken_while_an_index_is_exchanged_are_whole(
    directory_target: ChromaTarget, snapshot_dir: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", SNAPSHOTS]
    said = [str(directory_target.path), str(snapshot_dir), str(COUNT)]
    taker = subprocess.Popen([*command, *said], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert taker.stdout is not None
        taker.stdout.readline()
        for number in range(2):
            journal = MemoryJournal(tmp_path, recovery_id=f"beside-{number}", seconds=SECONDS)
            rebuild(directory_target, journal)
            # One that was begun before is done, and one that was begun now meets the next.
            made = json.loads(taker.stdout.readline())
            assert made[1] >= COUNT
    finally:
        (snapshot_dir.parent / "enough").touch()
        taker.communicate(timeout=120)

    assert taker.returncode == 0
    assert probe(directory_target, SECONDS).healthy


def test_an_index_that_is_being_built_is_in_no_snapshot_and_holds_up_none(
    directory_target: ChromaTarget, chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    """Its files change all the time, and writers wait until those that are copied stand still."""
    found = taking.settings(directory_target)[1]

    def take() -> None:
        (building,) = chroma_directory.path.glob(f"{work.PREFIX}*")
        (building / "growing.bin").write_bytes(b"1")
        made = taking.take(directory_target, REF)
        assert not [name for name in made.files if "growing" in name]
        with found.archive(made.name).open("rb") as file:
            reader = zstandard.ZstdDecompressor().stream_reader(file)
            with tarfile.open(fileobj=reader, mode="r|") as tar:
                assert not [one.name for one in tar if work.PREFIX in one.name]

    journal = MemoryJournal(tmp_path, seconds=SECONDS).after("index built and found right", take)

    rebuild(directory_target, journal)

    assert probe(directory_target, SECONDS).healthy


def test_repairs_do_not_wait_for_the_verification_of_a_snapshot(
    directory_target: ChromaTarget,
    chroma_directory: ChromaDirectory,
    snapshot_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def repair() -> None:
        rebuild(directory_target, MemoryJournal(tmp_path, recovery_id="one", seconds=SECONDS))
        noise(chroma_directory.segment / "data_level0.bin")
        assert snapshot_rollback.remedy is not None
        journal = MemoryJournal(tmp_path, recovery_id="two", seconds=SECONDS)
        snapshot_rollback.remedy(directory_target, SnapshotRollback(), journal)

    while_it(monkeypatch, verifying, "verify", repair)

    made = taking.take(directory_target, REF)

    assert (snapshot_dir / made.name).is_dir()
    assert probe(directory_target, SECONDS).healthy


def test_nothing_is_exchanged_or_removed_while_a_snapshot_copies(
    directory_target: ChromaTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disturb() -> None:
        journal = MemoryJournal(tmp_path, seconds=2)
        assert orphan_removal.remedy is not None
        with pytest.raises(TargetBusy):
            orphan_removal.remedy(directory_target, OrphanRemoval(older_than=0.001), journal)
        assert directory_target.path is not None
        with pytest.raises(TargetBusy), exclusive.alone(directory_target.path, 0):
            pass

    while_it(monkeypatch, copying.DirectoryCopy, "ahead", disturb)

    assert taking.take(directory_target, REF).records == COUNT + 3


def test_a_snapshot_that_finds_a_repair_at_work_comes_back_later(
    directory_target: ChromaTarget, snapshot_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "BUSY_SECONDS", 0.1)
    (snapshot_dir / ".attempt").unlink()
    assert directory_target.path is not None

    with exclusive.alone(directory_target.path, 60), pytest.raises(TargetBusy):
        taking.take(directory_target, REF)

    assert not (snapshot_dir / ".attempt").exists()
    assert taking.take(directory_target, REF).records == COUNT + 3


def test_an_old_snapshot_is_not_removed_while_a_rollback_may_read_it(
    directory_target: ChromaTarget, snapshot_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = directory_target.snapshots.model_copy(update={"keep": 1})
    target = directory_target.model_copy(update={"snapshots": settings})
    assert target.path is not None
    at_work = exclusive.alone(target.path, 60)
    while_it(monkeypatch, verifying, "verify", at_work.__enter__)
    said: list[str] = []

    taking.take(target, REF, note=said.append)

    assert len(list(snapshot_dir.glob("2*"))) == 2
    assert "retention waits" in said[0]
    at_work.__exit__(None, None, None)
    taking.take(target, REF)
    assert len(list(snapshot_dir.glob("2*"))) == 1


def test_an_index_is_built_anew_where_the_directory_was_replaced_meanwhile(
    directory_target: ChromaTarget, tmp_path: Path
) -> None:
    def roll_back() -> None:
        assert snapshot_rollback.remedy is not None
        other = MemoryJournal(tmp_path, recovery_id="rollback", seconds=SECONDS)
        snapshot_rollback.remedy(directory_target, SnapshotRollback(), other)

    journal = MemoryJournal(tmp_path, seconds=SECONDS)
    journal.after("index built and found right", roll_back)

    rebuild(directory_target, journal)

    assert any("once more" in text for text in journal.texts)
    assert probe(directory_target, SECONDS).healthy

"""Disks without room and folders without rights: a clear word, nothing lost, nothing half done."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.components.chromadb.snapshot_rollback import SnapshotRollback, snapshot_rollback
from recovery.components.chromadb.snapshots import catalogue, staging, taking
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import (
    NoSnapshot,
    NotCopied,
    NothingKept,
    NotReplaceable,
    RemedyError,
    TargetRefused,
)
from tests.chroma import ChromaDirectory, noise
from tests.chroma_kills import digest
from tests.components.chromadb.test_snapshot_rollback import neighbours
from tests.journals import MemoryJournal

SECONDS = 60.0


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A filesystem of as many KB as the test asks for."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={request.param}k", "tmpfs", str(place)]
    mounted = os.geteuid() == 0 and subprocess.run(command, check=False).returncode == 0
    if not mounted:
        pytest.skip("no right to mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def careless(_place: Path, _size: int, _what: str) -> None:
    """For the disk that is filled by somebody else after it was looked at."""


# While copying, and while packing.
@pytest.mark.parametrize("small_disk", [600, 2_000], indirect=True)
def test_a_disk_that_fills_up_under_a_snapshot_leaves_nothing_that_counts(
    directory_target: ChromaTarget,
    chroma_directory: ChromaDirectory,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = digest(chroma_directory.path)
    settings = directory_target.snapshots.model_copy(update={"directory": small_disk / "kept"})
    target = directory_target.model_copy(update={"snapshots": settings})
    with pytest.raises(NotCopied, match="can be spared"):
        taking.take(target, "chromadb/default")
    monkeypatch.setattr(catalogue, "need_room", careless)

    with pytest.raises(RemedyError):
        taking.take(target, "chromadb/default")

    assert [one.name for one in (small_disk / "kept").iterdir()] == [".attempt"]
    assert digest(chroma_directory.path) == before


@pytest.mark.parametrize("small_disk", [2_000, 3_400], indirect=True)
def test_a_disk_that_fills_up_under_a_rollback_leaves_the_directory_as_it_was(
    directory_target: ChromaTarget,
    chroma_directory: ChromaDirectory,
    small_disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = chroma_directory.copy(small_disk / "chroma")
    noise(there.segment / "data_level0.bin")
    before = digest(there.path)
    target = directory_target.model_copy(update={"path": there.path})
    with pytest.raises(NotCopied, match="can be spared"):
        roll_back(target, tmp_path)
    monkeypatch.setattr(staging, "need_room", careless)

    with pytest.raises(NotCopied, match="No space left"):
        roll_back(target, tmp_path)

    assert digest(there.path) == before
    assert neighbours(there.path) == []


@pytest.mark.parametrize("small_disk", [8], indirect=True)
def test_where_nothing_can_be_put_aside_nothing_is_replaced(
    directory_target: ChromaTarget, chroma_directory: ChromaDirectory, small_disk: Path
) -> None:
    """What is kept has to be written down first, on another disk that is full."""
    noise(chroma_directory.segment / "data_level0.bin")
    before = digest(chroma_directory.path)
    with (small_disk / "ballast").open("wb", buffering=0) as sink:
        while free_bytes(small_disk):
            sink.write(bytes(4096))

    with pytest.raises(NothingKept):
        roll_back(directory_target, small_disk)

    assert digest(chroma_directory.path) == before
    assert neighbours(chroma_directory.path) == []


def test_a_directory_of_another_user_gets_its_owner_back(
    directory_target: ChromaTarget, chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    for one in (chroma_directory.path, *chroma_directory.path.rglob("*")):
        os.chown(one, 12345, 12345)
    chroma_directory.path.chmod(0o710)
    chroma_directory.segment.joinpath("header.bin").unlink()

    roll_back(directory_target, tmp_path)

    everything = [chroma_directory.path, *chroma_directory.path.rglob("*")]
    assert {(one.stat().st_uid, one.stat().st_gid) for one in everything} == {(12345, 12345)}
    assert chroma_directory.path.stat().st_mode & 0o777 == 0o710


def test_what_could_not_belong_to_the_owner_does_not_replace_it(
    directory_target: ChromaTarget,
    chroma_directory: ChromaDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    chroma_directory.segment.joinpath("header.bin").unlink()
    os.chown(chroma_directory.path, 12345, 12345)
    before = digest(chroma_directory.path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(TargetRefused, match="belongs to user 12345"):
        roll_back(directory_target, tmp_path)

    assert digest(chroma_directory.path) == before
    assert neighbours(chroma_directory.path) == []


def test_an_unreadable_directory_or_archive_is_named(
    directory_target: ChromaTarget, snapshot_dir: Path, tmp_path: Path
) -> None:
    found = taking.settings(directory_target)[1]
    archive = found.archive(found.snapshots()[0].name)
    shutil.move(archive, archive.with_suffix(".gone"))
    with pytest.raises(NoSnapshot, match=f"{archive.name} is not there"):
        roll_back(directory_target, tmp_path)
    shutil.move(archive.with_suffix(".gone"), archive)
    nowhere = directory_target.model_copy(update={"path": tmp_path / "no" / "chroma"})
    with pytest.raises((NotReplaceable, NotCopied)):
        roll_back(nowhere, tmp_path)


def free_bytes(disk: Path) -> int:
    return shutil.disk_usage(disk).free


def roll_back(target: ChromaTarget, folder: Path) -> None:
    snapshot_rollback.remedy(target, SnapshotRollback(), MemoryJournal(folder, seconds=SECONDS))

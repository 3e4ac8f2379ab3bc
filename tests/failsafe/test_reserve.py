"""Room that is there when a disk is full, on real filesystems."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.failsafe.reserve import Reserve

MB = 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 16 MB."""
    said = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(tmp_path)]
    done = subprocess.run(said, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def free(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def fill(disk: Path) -> Path:
    path = disk / "filler"
    with path.open("wb") as sink:
        os.posix_fallocate(sink.fileno(), 0, free(disk))
    return path


def test_a_reserve_is_given_up_on_a_full_disk_and_taken_back(disk: Path) -> None:
    reserve = Reserve(disk, MB)
    reserve.tend()
    assert free(disk) == 15 * MB
    filler = fill(disk)
    assert free(disk) == 0

    reserve.tend()
    assert free(disk) == MB
    reserve.tend()
    assert free(disk) == MB, "not taken while room is short"
    filler.unlink()
    reserve.tend()

    assert [path.name for path in disk.iterdir()] == ["reserve"]
    assert free(disk) == 15 * MB


def test_a_disk_too_small_for_it_and_a_policy_without_it_have_none(disk: Path) -> None:
    Reserve(disk, 5 * MB).tend()
    assert list(disk.iterdir()) == []

    Reserve(disk, MB).tend()
    Reserve(disk, 0).tend()
    assert list(disk.iterdir()) == []


def test_a_state_directory_that_is_not_there_stops_no_guard(tmp_path: Path) -> None:
    Reserve(tmp_path / "gone", MB).tend()

    assert not (tmp_path / "gone").exists()

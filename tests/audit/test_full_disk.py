"""A disk without room: the seal fails by its name, a person hears of it, and nothing is lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from recovery.config.model import AuditSection
from recovery.errors import AuditNotSealed
from tests.audit.killing import NOT_SEALED, start_sealing
from tests.audit.trails import Trail

PAGE = 4096
PAGES = 16


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={PAGES * PAGE}", "tmpfs", str(place)]
    mounted = os.geteuid() == 0 and subprocess.run(command, check=False).returncode == 0
    if not mounted:
        pytest.skip("no right to mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("free_pages", range(8))
def test_with_any_number_of_pages_left_nothing_is_lost_and_the_next_run_works(
    trail: Trail, small_disk: Path, free_pages: int
) -> None:
    here = replace(trail, folder=small_disk / "audit")
    here.settings = AuditSection(retention_days=36_500, compression_enabled=False)
    here.write(0, 50)
    here.seal()
    for day in range(1, 5):
        here.write(day, 50)
    ballast = small_disk / "ballast"
    with ballast.open("wb") as sink:
        os.posix_fallocate(sink.fileno(), 0, PAGE * _free_pages(small_disk))
        os.ftruncate(sink.fileno(), sink.seek(0, os.SEEK_END) - PAGE * free_pages)

    with pytest.raises(AuditNotSealed, match="No space left"):
        here.seal()

    assert here.read() == here.expected()
    assert here.verify().findings == []
    assert [alert["kind"] for alert in here.alerts()] == ["audit_not_sealed"]
    ballast.unlink()
    here.seal()
    assert here.waiting() == 0
    assert here.read() == here.expected()
    assert here.verify().findings == []


@pytest.mark.parametrize("largest_file", [0, 100, 300, 500, 900, 1500, 3000])
def test_a_limit_on_the_size_of_files_is_a_full_disk_too(trail: Trail, largest_file: int) -> None:
    trail.settings = AuditSection(retention_days=36_500, compression_enabled=False)
    for day in range(3):
        trail.write(day, 30)

    child = start_sealing(trail, largest_file=largest_file)
    child.join()

    assert child.exitcode == NOT_SEALED
    assert trail.waiting() == 90
    assert trail.verify().findings == []
    assert [alert["kind"] for alert in trail.alerts()] == ["audit_not_sealed"]
    trail.seal()
    assert trail.waiting() == 0
    assert trail.read() == trail.expected()
    assert trail.verify().findings == []


def test_a_failure_after_a_success_is_told_again(trail: Trail) -> None:
    trail.write(0)
    for _ in range(2):
        trail.folder.write_text("in the way")
        with pytest.raises(AuditNotSealed):
            trail.seal()
        trail.folder.unlink()
        trail.seal()
        for path in trail.folder.iterdir():
            path.unlink()
        trail.folder.rmdir()

    assert [alert["kind"] for alert in trail.alerts()] == ["audit_not_sealed"] * 2


def _free_pages(place: Path) -> int:
    return os.statvfs(place).f_bfree

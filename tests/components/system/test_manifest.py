"""The list of what was removed can be read to its end, however a writer of it ended."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from recovery.components.system.manifest import FILE, Manifest
from recovery.components.system.seen import Seen
from tests.components.system.conftest import Mount, fill_up
from tests.journals import MemoryJournal


def seen(number: int) -> Seen:
    # Names that compress badly: a member is larger than a page.
    return Seen(f"{number}-{os.urandom(40).hex()}", number, 1, 1, 1)


def announce(manifest: Manifest, folder: str, count: int) -> list[str]:
    files = [seen(number) for number in range(count)]
    manifest.announce(folder, files)
    manifest.write()
    return [f"{folder}/{each.name}" for each in files]


def listed(path: Path) -> list[str]:
    return [json.loads(line)[0] for line in gzip.decompress(path.read_bytes()).splitlines()]


@pytest.mark.parametrize("cut", [1, 100, 5000])
def test_whoever_resumes_after_a_write_that_was_cut_off_spoils_nothing(
    tmp_path: Path, cut: int
) -> None:
    journal = MemoryJournal(state_dir=tmp_path)
    path = journal.keep().folder / FILE
    first = announce(Manifest(journal.keep), "/first", 200)
    whole = path.stat().st_size
    announce(Manifest(journal.keep), "/cut", 200)
    os.truncate(path, path.stat().st_size - cut)
    assert path.stat().st_size > whole

    last = announce(Manifest(journal.keep), "/last", 200)

    assert listed(path) == [*first, *last]


def test_a_disk_that_takes_half_a_write_spoils_nothing(tmp_path: Path, mount: Mount) -> None:
    folder = mount(2)
    journal = MemoryJournal(state_dir=folder)
    path = journal.keep().folder / FILE
    manifest = Manifest(journal.keep)
    names = announce(manifest, "/first", 200)
    fillers = fill_up(folder / "fillers", 0.05)
    os.truncate(fillers[-2], fillers[-2].stat().st_size - 4096)

    names += announce(manifest, "/waits", 500)
    fillers[0].unlink()
    names += announce(manifest, "/last", 200)

    assert listed(path) == names
    assert manifest.close("all of them")


def test_a_list_that_nobody_closes_is_found_among_what_is_kept(tmp_path: Path) -> None:
    journal = MemoryJournal(state_dir=tmp_path)

    announce(Manifest(journal.keep), "/first", 1)

    assert "removed" in journal.keep().summary

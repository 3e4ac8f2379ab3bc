"""Rebuilds killed with SIGKILL at every moment: the old index or the new one, and the next run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chroma import ChromaDirectory
from tests.components.chromadb.killing import Rebuilding
from tests.components.chromadb.rebuilds import local, rebuild
from tests.journals import MemoryJournal

pytestmark = [pytest.mark.kill, pytest.mark.slow]

KILLS = 4


@pytest.mark.timeout(300)
@pytest.mark.parametrize("run", ["first", "another"], ids=["same recovery", "another recovery"])
def test_a_rebuild_killed_anywhere_leaves_the_old_index_or_the_new_one(
    chroma_template: ChromaDirectory, tmp_path: Path, run: str
) -> None:
    broken = Rebuilding.of(chroma_template, tmp_path, "broken")
    for _ in range(KILLS):
        if not broken.kill_once() or broken.state_now() == "new":
            break

    broken.finish(run)


def test_a_folder_that_came_to_its_place_and_not_into_the_database_goes_with_the_next_run(
    chroma_template: ChromaDirectory, tmp_path: Path
) -> None:
    """Killed in between, nobody knows the new folder but what the recovery wrote down."""
    broken = Rebuilding.of(chroma_template, tmp_path, "broken")
    path = broken.directory.path
    kept = MemoryJournal(tmp_path).keep()
    stray = "7b0b64f3-6f2a-4d8c-9c3a-0d6c3b1e2a11"
    (path / stray).mkdir()
    exchange = {
        "collection": "gone",
        "name": "docs",
        "old": broken.old,
        "new": stray,
        "saved": 2_000,
        "end": 2_400,
        "records": 2_400,
        "is_listed": True,
    }
    kept.store("indexes being exchanged", path=str(path), exchanges=[exchange])

    rebuild(local(broken.directory), tmp_path)

    assert not (path / stray).exists()
    assert broken.state_now() == "new"

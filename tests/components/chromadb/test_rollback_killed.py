"""Rollbacks killed with SIGKILL at random moments: wholly old or wholly new, and then completed."""

from __future__ import annotations

from pathlib import Path

import pytest

from recovery.components.chromadb import exclusive, leftovers
from recovery.components.chromadb.probe import probe
from recovery.components.chromadb.swap import Swap
from recovery.components.chromadb.target import ChromaTarget
from tests.chroma import ChromaDirectory, ManagedChroma, noise
from tests.chroma_kills import Kills, back, forward, without_server

pytestmark = [pytest.mark.kill, pytest.mark.slow]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("run", [forward, back], ids=["forward", "back"])
def test_whenever_a_rollback_is_killed_the_directory_is_whole_and_the_next_one_completes(
    run: object, directory_target: ChromaTarget, chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    target = directory_target if run is forward else without_server(directory_target)
    kills = Kills(target, chroma_directory, tmp_path, run=run)
    kills.prepare()

    for number in range(4):
        kills.round(number)

    if run is forward:
        assert probe(directory_target, 60).healthy


def test_a_server_that_a_killed_rollback_left_stopped_is_started_by_whoever_comes_next(
    managed_chroma: ManagedChroma, snapshot_dir: Path, tmp_path: Path
) -> None:
    target = managed_chroma.target(snapshots={"directory": snapshot_dir})
    path = managed_chroma.directory.path
    staged = managed_chroma.directory.copy(tmp_path / ".chroma.recovery-dead.new").path
    noise(managed_chroma.directory.segment / "data_level0.bin")
    exclusive.note_stopped(path)
    managed_chroma.kill()
    begun = Swap.begin(path, staged, tmp_path / ".chroma.recovery-dead.old", "dead")
    begun.forward()

    leftovers.settle_alone(target)

    assert managed_chroma.served.answers()
    assert probe(target, 60).healthy
    assert Swap.find(path) is None
    assert not exclusive.is_noted_stopped(path)

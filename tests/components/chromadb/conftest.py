"""Targets with snapshots for the tests of this folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from recovery.components.chromadb.snapshots import taking
from recovery.components.chromadb.target import ChromaTarget
from tests.chroma import COUNT, ChromaDirectory


@pytest.fixture(scope="session")
def snapshot_template(
    chroma_template: ChromaDirectory, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """One verified snapshot of the healthy directory; never broken itself, only copied."""
    place = tmp_path_factory.mktemp("snapshot")
    source = chroma_template.copy(place / "chroma")
    target = ChromaTarget(path=source.path, snapshots={"directory": place / "snapshots"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOVERY_STATE_DIR", str(place / "state"))
        taking.take(target, "chromadb/default")
    return place / "snapshots"


@pytest.fixture
def snapshot_dir(snapshot_template: Path, tmp_path: Path) -> Path:
    """A catalogue with one snapshot, that the test may break."""
    return Path(shutil.copytree(snapshot_template, tmp_path / "snapshots"))


@pytest.fixture
def directory_target(
    chroma_directory: ChromaDirectory,
    snapshot_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> ChromaTarget:
    """A directory that applications open themselves, and one snapshot of it."""
    monkeypatch.setenv("RECOVERY_STATE_DIR", str(tmp_path / "state"))
    return ChromaTarget(
        path=chroma_directory.path,
        collections={"docs": COUNT},
        snapshots={"directory": snapshot_dir},
    )

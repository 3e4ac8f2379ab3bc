"""What the policy says of snapshots and rollbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from recovery.components.chromadb.target import ChromaTarget
from recovery.config import Policy, load_policy
from recovery.errors import ConfigError
from recovery.events import TargetRef
from recovery.finding import find_component
from recovery.selection import ladder


def policy(
    folder: Path, targets: dict[str, Any], integration: dict[str, Any] | None = None
) -> Policy:
    strategy = {
        "name": "snapshot_rollback",
        "script": str(folder / "must-not-run.sh"),
        "conditions": ["data_corruption"],
    }
    block = {"targets": targets, "strategies": [strategy]}
    document = {"recovery": {"chromadb": block}, "integration": integration or {}}
    file = folder / "recovery_config.yml"
    file.write_text(yaml.safe_dump(document))
    return load_policy(file)


def target(found: Policy, name: str) -> ChromaTarget:
    model = found.target(TargetRef("chromadb", name))
    assert isinstance(model, ChromaTarget)
    return model


def test_each_target_has_a_folder_of_its_own_below_the_snapshot_dir(tmp_path: Path) -> None:
    targets = {"one": {"path": "/data/one"}, "two": {"snapshots": {"directory": "/kept/two"}}}
    found = policy(tmp_path, targets, {"snapshot_dir": "/kept"})

    assert target(found, "one").snapshots.directory == Path("/kept/chromadb/one")
    assert target(found, "two").snapshots.directory == Path("/kept/two")
    assert target(found, "one").is_selected_by({"snapshot_dir": "/kept/"})
    assert not target(found, "one").is_selected_by({"snapshot_dir": "/elsewhere"})


@pytest.mark.parametrize(
    ("path", "kept"),
    [("/data/chroma", "/data/chroma/snapshots"), ("/kept/chromadb/one/data", "/kept")],
)
def test_snapshots_inside_what_they_protect_are_refused_when_the_policy_is_loaded(
    tmp_path: Path, path: str, kept: str
) -> None:
    with pytest.raises(ConfigError, match="inside") as caught:
        policy(tmp_path, {"one": {"path": path}}, {"snapshot_dir": kept})

    (problem,) = caught.value.facts["problems"]
    assert problem["key"] == "recovery.chromadb.targets.one"
    assert problem["line"] > 1


def test_a_symlink_does_not_hide_that_they_are_inside(tmp_path: Path) -> None:
    (tmp_path / "chroma" / "snapshots").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "chroma" / "snapshots")

    with pytest.raises(ConfigError, match="inside"):
        policy(
            tmp_path,
            {"one": {"path": str(tmp_path / "chroma")}},
            {"snapshot_dir": str(tmp_path / "link")},
        )


def test_a_rollback_that_is_switched_off_is_no_rung(tmp_path: Path) -> None:
    failure = find_component("chromadb").failure_type("data_corruption")
    assert failure is not None
    for is_on in (True, False):
        found = policy(tmp_path, {}, {"chromadb_rollback_enabled": is_on})
        strategy = found.strategy("chromadb", "snapshot_rollback")

        assert (strategy.obstacle is None) == is_on
        rungs = ladder(found.component("chromadb").strategies, failure)
        assert [rung.name for rung in rungs] == (["snapshot_rollback"] if is_on else [])
    assert "chromadb_rollback_enabled" in str(strategy.obstacle)

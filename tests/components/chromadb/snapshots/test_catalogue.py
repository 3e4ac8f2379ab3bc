"""Which snapshot is the newest, which may be gone back to, and which go: whatever a clock said."""

from __future__ import annotations

import json
import os
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recovery import __version__
from recovery.components.chromadb.snapshot_rollback import (
    RollbackScope,
    SnapshotRollback,
    snapshot_rollback,
)
from recovery.components.chromadb.snapshots import taking
from recovery.components.chromadb.snapshots.catalogue import Catalogue
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import NoSnapshot, SnapshotDamaged
from recovery.text import readable
from tests.chroma import ChromaDirectory, noise, truncate
from tests.journals import MemoryJournal

REF = "chromadb/default"
DAY = timedelta(days=1)


def now() -> datetime:
    return datetime.now(UTC)


def described(snapshot_dir: Path, name: str, **said: Any) -> None:
    """As if it had been made with this in its manifest."""
    file = snapshot_dir / name / "manifest.json"
    known = json.loads(file.read_text())
    file.write_text(json.dumps({**known, "name": name, **said}))


def again(snapshot_dir: Path, name: str, **said: Any) -> None:
    """One more, made after all the others."""
    catalogue = Catalogue(snapshot_dir)
    known = catalogue.snapshots()[0]
    place = catalogue.begin(name)
    shutil.copy(catalogue.archive(known.name), place)
    catalogue.commit(place, known.model_copy(update={"name": name, **said}))


def roll_back(target: ChromaTarget, journal: MemoryJournal) -> MemoryJournal:
    assert snapshot_rollback.remedy is not None
    snapshot_rollback.remedy(target, SnapshotRollback(), journal)
    return journal


def names(snapshot_dir: Path) -> list[str]:
    return [one.name for one in Catalogue(snapshot_dir).snapshots()]


@pytest.fixture
def first(snapshot_dir: Path) -> str:
    (only,) = names(snapshot_dir)
    return only


def test_the_newest_is_the_one_that_was_made_last_whatever_its_date(
    snapshot_dir: Path, first: str
) -> None:
    again(snapshot_dir, "ahead", taken_at=now() + 300 * DAY)
    again(snapshot_dir, "set-back", taken_at=now() - 9_000 * DAY)

    assert names(snapshot_dir) == ["set-back", "ahead", first]


def test_of_those_without_a_number_a_date_that_lies_ahead_is_believed_last(
    snapshot_dir: Path, first: str
) -> None:
    again(snapshot_dir, "older", taken_at=now() - 9 * DAY)
    again(snapshot_dir, "ahead", taken_at=now() + DAY)
    for name in (first, "older", "ahead"):
        described(snapshot_dir, name, sequence=0)

    assert names(snapshot_dir) == [first, "older", "ahead"]


def test_a_date_that_lies_ahead_does_not_stop_the_schedule(
    directory_target: ChromaTarget, snapshot_dir: Path, first: str
) -> None:
    assert not taking.is_due(directory_target, now())
    described(snapshot_dir, first, taken_at=(now() + 300 * DAY).isoformat())
    ahead = (now() + 300 * DAY).timestamp()
    os.utime(snapshot_dir / ".attempt", (ahead, ahead))

    assert taking.is_due(directory_target, now())
    made = taking.take(directory_target, REF)

    assert names(snapshot_dir) == [made.name, first]
    assert not taking.is_due(directory_target, now())


def test_a_clock_that_is_a_little_ahead_takes_no_second_one(
    directory_target: ChromaTarget, snapshot_dir: Path, first: str
) -> None:
    described(snapshot_dir, first, taken_at=(now() + timedelta(seconds=20)).isoformat())

    assert not taking.is_due(directory_target, now())


def test_a_rollback_goes_to_the_one_made_last_and_claims_no_age_that_nobody_knows(
    directory_target: ChromaTarget,
    chroma_directory: ChromaDirectory,
    snapshot_dir: Path,
    tmp_path: Path,
) -> None:
    again(snapshot_dir, "ahead", taken_at=now() + DAY)
    again(snapshot_dir, "last", taken_at=now() + DAY / 2)
    noise(chroma_directory.segment / "data_level0.bin")

    journal = roll_back(directory_target, MemoryJournal(tmp_path, seconds=120))

    (told,) = [step.figures for step in journal.steps if step.text == "rolled back"]
    assert told["snapshot"] == "last"
    assert told["seconds_back"] is None


@pytest.mark.parametrize("harm", ["shorter", "longer", "gone", "no manifest"])
def test_what_is_damaged_is_not_chosen_and_not_listed(
    snapshot_dir: Path, first: str, harm: str
) -> None:
    again(snapshot_dir, "newer")
    archive = Catalogue(snapshot_dir).archive("newer")
    match harm:
        case "shorter":
            truncate(archive, 0.9)
        case "longer":
            archive.write_bytes(archive.read_bytes() + b".")
        case "gone":
            archive.unlink()
        case _:
            (snapshot_dir / "newer" / "manifest.json").write_text("{")

    assert names(snapshot_dir) == [first]
    assert list(Catalogue(snapshot_dir).damaged()) == ["newer"]
    with pytest.raises(SnapshotDamaged, match="newer"):
        Catalogue(snapshot_dir).find("newer")
    with pytest.raises(NoSnapshot, match=f"there are: {first}"):
        Catalogue(snapshot_dir).find("unknown")


def test_a_damaged_one_that_is_asked_for_changes_nothing(
    directory_target: ChromaTarget, snapshot_dir: Path, first: str, tmp_path: Path
) -> None:
    truncate(Catalogue(snapshot_dir).archive(first))
    before = directory_target.path and directory_target.path.stat().st_ino
    asked = MemoryJournal(tmp_path, scope=RollbackScope(snapshot=first))

    with pytest.raises(SnapshotDamaged, match="bytes"):
        roll_back(directory_target, asked)
    with pytest.raises(NoSnapshot):
        roll_back(directory_target, MemoryJournal(tmp_path, recovery_id="newest"))

    assert directory_target.path
    assert directory_target.path.stat().st_ino == before


def test_what_is_damaged_pushes_no_good_one_out(snapshot_dir: Path, first: str) -> None:
    for name in ("second", "third"):
        again(snapshot_dir, name)
        truncate(Catalogue(snapshot_dir).archive(name))
    said: list[str] = []

    Catalogue(snapshot_dir).retain(1, said.append)

    assert names(snapshot_dir) == [first]
    assert [line.split(":")[1].strip() for line in said] == ["snapshot second", "snapshot third"]


def test_what_is_damaged_goes_with_the_good_ones_of_its_age(snapshot_dir: Path, first: str) -> None:
    again(snapshot_dir, "second")
    truncate(Catalogue(snapshot_dir).archive("second"))
    again(snapshot_dir, "third", taken_at=now() - DAY)
    said: list[str] = []

    Catalogue(snapshot_dir).retain(1, said.append)

    assert names(snapshot_dir) == ["third"]
    assert Catalogue(snapshot_dir).damaged() == {}
    assert said == [f"past retention and removed: second, {first}"]


def test_a_clock_that_was_set_back_does_not_cost_the_one_just_made(
    directory_target: ChromaTarget, snapshot_dir: Path, first: str
) -> None:
    described(snapshot_dir, first, taken_at=(now() + 300 * DAY).isoformat())
    settings = directory_target.snapshots.model_copy(update={"keep": 1})

    made = taking.take(directory_target.model_copy(update={"snapshots": settings}), REF)

    assert names(snapshot_dir) == [made.name]


def test_exports_do_not_push_out_the_last_copy_of_a_directory(
    snapshot_dir: Path, first: str
) -> None:
    for name in ("second", "third"):
        again(snapshot_dir, name, method="export")

    Catalogue(snapshot_dir).retain(1, lambda _: None)

    assert names(snapshot_dir) == ["third", first]


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"format": 2, "written_by": "7.1.0"}, "of format 2, written by recovery 7.1.0"),
        ({"quality": "high", "written_by": "7.1.0"}, "has quality, written by recovery 7.1.0"),
        ({"quality": "high"}, "has quality"),
        ({"format": "\x1b[2J", "written_by": ["x"]}, "of format"),
    ],
    ids=str,
)
def test_one_of_a_later_version_is_refused_by_that_versions_name_and_stays(
    directory_target: ChromaTarget,
    snapshot_dir: Path,
    first: str,
    said: dict[str, Any],
    named: str,
) -> None:
    described(snapshot_dir, first, **said)
    catalogue, noted = Catalogue(snapshot_dir), list[str]()
    refusal = f"{named}: recovery {__version__} cannot read that, a later one can"

    with pytest.raises(SnapshotDamaged, match=re.escape(named)) as caught:
        catalogue.find(first)
    with pytest.raises(NoSnapshot, match=re.escape(named)):
        roll_back(directory_target, MemoryJournal(snapshot_dir.parent))
    catalogue.retain(1, noted.append)

    assert caught.value.message == readable(caught.value.message)
    if "written_by" in said and isinstance(said["written_by"], str):
        assert refusal in caught.value.message
    assert named in noted[0]
    assert catalogue.archive(first).is_file()


def test_one_of_ours_says_which_version_made_it(snapshot_dir: Path, first: str) -> None:
    assert Catalogue(snapshot_dir).find(first).written_by == __version__


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"[" * 100_000, b"\xff", b'{"format": 1}'])
def test_a_manifest_that_is_none_is_named(snapshot_dir: Path, first: str, content: bytes) -> None:
    (snapshot_dir / first / "manifest.json").write_bytes(content)

    with pytest.raises(SnapshotDamaged, match=r"manifest\.json cannot be read"):
        Catalogue(snapshot_dir).find(first)

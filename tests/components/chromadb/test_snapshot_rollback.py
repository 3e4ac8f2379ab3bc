"""``chromadb.snapshot_rollback`` on directories and servers that are really damaged."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from recovery.components.chromadb.probe import probe
from recovery.components.chromadb.rollback_undo import discard, undo
from recovery.components.chromadb.snapshot_rollback import (
    RollbackScope,
    SnapshotRollback,
    snapshot_rollback,
)
from recovery.components.chromadb.snapshots import archive, taking
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import (
    NoSnapshot,
    NotReplaceable,
    SnapshotDamaged,
    WontStart,
    WouldOverwrite,
)
from recovery.keeping import size_of
from recovery.version import __version__
from tests.chroma import (
    COUNT,
    DAMAGES,
    DIMENSION,
    ROOT,
    ChromaDirectory,
    Damage,
    ManagedChroma,
    ask,
    noise,
    overwrite,
)
from tests.journals import MemoryJournal
from tests.waiting import until

SECONDS = 60.0
PARAMETERS = SnapshotRollback()

# The bench goes through all of them.
SOME_DAMAGES = [
    damage
    for damage in DAMAGES
    if damage.name
    in {
        "database header zeroed",
        "database started anew",
        "directory removed",
        "segment folder deleted",
        "data_level0.bin overwritten",
        "collection deleted",
    }
]


def roll_back(target: ChromaTarget, journal: MemoryJournal) -> MemoryJournal:
    journal.begin(SECONDS)
    snapshot_rollback.remedy(target, PARAMETERS, journal)
    return journal


def neighbours(path: Path) -> list[str]:
    """What a replacement left beside the directory."""
    return sorted(one.name for one in path.parent.iterdir() if ".recovery" in one.name)


def step(journal: MemoryJournal, text: str) -> dict[str, Any]:
    return dict(next(step.figures for step in journal.steps if text in step.text))


@pytest.mark.parametrize("damage", SOME_DAMAGES, ids=str)
def test_a_damage_of_a_directory_is_rolled_back_and_can_be_undone(
    damage: Damage,
    directory_target: ChromaTarget,
    chroma_directory: ChromaDirectory,
    tmp_path: Path,
) -> None:
    damage.inflict(chroma_directory)
    assert probe(directory_target, SECONDS).failure_type == damage.failure_type

    journal = roll_back(directory_target, MemoryJournal(tmp_path))

    assert probe(directory_target, SECONDS).healthy
    assert chroma_directory.as_seen()["count"] == COUNT
    assert journal.notices == ["reopen"]
    assert step(journal, "rolled back")["records"] == COUNT + 3
    if damage.name == "directory removed":
        assert neighbours(chroma_directory.path) == []
        return
    (aside,) = chroma_directory.path.parent.glob(".*.old")
    assert (journal.keep().entry().bytes or 0) > size_of(aside) > 100_000
    again = MemoryJournal(tmp_path, recovery_id="undo")
    undo(directory_target, PARAMETERS, again, journal.keep())
    (restored,) = chroma_directory.path.parent.glob(".*.old")
    assert (again.keep().entry().bytes or 0) > size_of(restored) > 100_000
    assert (journal.keep().entry().bytes or 0) < 10_000
    assert probe(directory_target, SECONDS).failure_type == damage.failure_type
    discard(directory_target, PARAMETERS, again.keep())
    assert neighbours(chroma_directory.path) == []


def test_a_damaged_server_is_stopped_rolled_back_started_and_asked(
    managed_chroma: ManagedChroma, snapshot_dir: Path, tmp_path: Path
) -> None:
    target = managed_chroma.target(snapshots={"directory": snapshot_dir})
    before = managed_chroma.process.inspect().id
    noise(managed_chroma.directory.segment / "data_level0.bin")
    assert probe(target, SECONDS).failure_type == "index_corrupted"

    journal = roll_back(target, MemoryJournal(tmp_path))

    assert probe(target, SECONDS).healthy
    assert managed_chroma.process.inspect().id != before
    assert step(journal, "queried")["found_themselves"]
    again = MemoryJournal(tmp_path, recovery_id="undo")
    undo(target, PARAMETERS, again, journal.keep())
    assert probe(target, SECONDS).failure_type == "index_corrupted"
    third = MemoryJournal(tmp_path, recovery_id="third")
    undo(target, PARAMETERS, third, again.keep())
    assert probe(target, SECONDS).healthy


def test_applications_that_wrote_since_are_not_undone_unasked(
    directory_target: ChromaTarget, chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    chroma_directory.segment.joinpath("header.bin").unlink()
    journal = roll_back(directory_target, MemoryJournal(tmp_path))
    assert ask("delete", chroma_directory.path, name="notes").returncode == 0
    add(chroma_directory)

    with pytest.raises(WouldOverwrite, match="written to since"):
        undo(directory_target, PARAMETERS, MemoryJournal(tmp_path, recovery_id="u"), journal.keep())

    forced = MemoryJournal(tmp_path, recovery_id="forced", overwrite=True)
    undo(directory_target, PARAMETERS, forced, journal.keep())
    assert probe(directory_target, SECONDS).failure_type == "index_corrupted"
    kept = Path(forced.keep().facts["aside"])
    assert ChromaDirectory(kept).as_seen()["count"] == COUNT + 1


class Died(BaseException):
    """What a SIGKILL leaves of a process, as far as the disk shows it."""


def die() -> None:
    raise Died


@pytest.mark.parametrize("moment", ["is {path} again", "applications asked"])
def test_an_undo_that_died_after_its_exchange_is_taken_up_where_it_was(
    managed_chroma: ManagedChroma, snapshot_dir: Path, tmp_path: Path, moment: str
) -> None:
    target = managed_chroma.target(snapshots={"directory": snapshot_dir})
    path = managed_chroma.directory.path
    noise(managed_chroma.directory.segment / "data_level0.bin")
    journal = roll_back(target, MemoryJournal(tmp_path))
    undoing = MemoryJournal(tmp_path, recovery_id="undo").after(moment.format(path=path), die)
    with pytest.raises(Died):
        undo(target, PARAMETERS, undoing, journal.keep())

    undo(target, PARAMETERS, undoing, journal.keep())

    assert managed_chroma.served.answers()
    assert probe(target, SECONDS).failure_type == "index_corrupted"
    undo(target, PARAMETERS, MemoryJournal(tmp_path, recovery_id="third"), undoing.keep())
    assert probe(target, SECONDS).healthy


def test_an_undo_of_an_undo_does_not_pass_over_what_was_written_since(
    directory_target: ChromaTarget, chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    chroma_directory.segment.joinpath("header.bin").unlink()
    journal = roll_back(directory_target, MemoryJournal(tmp_path))
    undone = MemoryJournal(tmp_path, recovery_id="undo")
    undo(directory_target, PARAMETERS, undone, journal.keep())
    assert ask("delete", chroma_directory.path, name="notes").returncode == 0

    again = MemoryJournal(tmp_path, recovery_id="again")
    with pytest.raises(WouldOverwrite, match="written to since"):
        undo(directory_target, PARAMETERS, again, undone.keep())


def add(directory: ChromaDirectory) -> None:
    done = ask("add_one", directory.path, dimension=16)
    assert done.returncode == 0, done.stderr


def test_a_server_that_cannot_start_on_the_snapshot_gets_its_directory_back(
    managed_chroma: ManagedChroma, snapshot_dir: Path, tmp_path: Path
) -> None:
    broken = managed_chroma.runtime.model_copy(update={"start": ("sh", "-c", "sleep 0.2; exit 3")})
    target = managed_chroma.target(snapshots={"directory": snapshot_dir}, runtime=broken)
    before = managed_chroma.directory.path.stat().st_ino

    with pytest.raises(WontStart, match="ended"):
        roll_back(target, MemoryJournal(tmp_path))

    assert managed_chroma.directory.path.stat().st_ino == before
    assert neighbours(managed_chroma.directory.path) == []
    managed_chroma.start()
    assert probe(managed_chroma.target(), SECONDS).healthy


def test_a_damaged_snapshot_is_passed_over_for_the_one_before(
    directory_target: ChromaTarget, chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    _, catalogue = taking.settings(directory_target)
    (older,) = catalogue.snapshots()
    newer = older.model_copy(
        update={"name": "newer", "taken_at": older.taken_at + timedelta(hours=1)}
    )
    place = catalogue.begin("newer")
    shutil.copy(catalogue.archive(older.name), place)
    overwrite(place / "data.tar.zst", bytes(100), at=older.archive_bytes // 2)
    catalogue.commit(place, newer)
    noise(chroma_directory.segment / "data_level0.bin")

    only = MemoryJournal(tmp_path, recovery_id="only", scope=RollbackScope(snapshot="newer"))
    with pytest.raises(SnapshotDamaged):
        roll_back(directory_target, only)
    journal = roll_back(directory_target, MemoryJournal(tmp_path))

    assert step(journal, "rolled back")["snapshot"] == older.name
    assert any("passed over" in text for text in journal.texts)
    assert probe(directory_target, SECONDS).healthy


def test_a_snapshot_that_nobody_of_this_version_judged_is_judged_before_it_is_used(
    directory_target: ChromaTarget, chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    _, catalogue = taking.settings(directory_target)
    (older,) = catalogue.snapshots()
    assert older.judged_by == __version__
    # Its digests are right, as those of one would be that an earlier version took to be well.
    damaged = chroma_directory.copy(tmp_path / "damaged")
    noise(damaged.segment / "data_level0.bin")
    place = catalogue.begin("newer")
    packed = archive.pack(
        damaged.path, sorted(older.files), place / "data.tar.zst", lambda: SECONDS
    )
    known = {
        "archive_bytes": packed.bytes,
        "archive_sha256": packed.sha256,
        "files": packed.files,
        "taken_at": older.taken_at + timedelta(hours=1),
    }
    newer = older.model_copy(update={**known, "name": "newer", "judged_by": "0.0.1"})
    catalogue.commit(place, newer)
    before = chroma_directory.path.stat().st_ino

    only = MemoryJournal(tmp_path, recovery_id="only", scope=RollbackScope(snapshot="newer"))
    with pytest.raises(SnapshotDamaged, match="is not healthy"):
        roll_back(directory_target, only)

    assert chroma_directory.path.stat().st_ino == before
    assert neighbours(chroma_directory.path) == []
    journal = roll_back(directory_target, MemoryJournal(tmp_path))
    assert step(journal, "rolled back")["snapshot"] == older.name
    assert step(journal, "looked at")["integrity"] == "digests"


def test_a_snapshot_with_less_than_the_policy_expects_by_now_is_not_used(
    directory_target: ChromaTarget, chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    more = directory_target.model_copy(update={"collections": {"docs": COUNT + 1}})
    before = chroma_directory.path.stat().st_ino

    with pytest.raises(SnapshotDamaged, match=f"holds {COUNT} records of docs"):
        roll_back(more, MemoryJournal(tmp_path))

    assert chroma_directory.path.stat().st_ino == before
    assert neighbours(chroma_directory.path) == []


def test_without_a_snapshot_nothing_is_touched(
    directory_target: ChromaTarget, snapshot_dir: Path, tmp_path: Path
) -> None:
    shutil.rmtree(snapshot_dir)

    with pytest.raises(NoSnapshot):
        roll_back(directory_target, MemoryJournal(tmp_path))
    named = MemoryJournal(tmp_path, scope=RollbackScope(snapshot="x"))
    with pytest.raises(NoSnapshot, match="there are: none"):
        roll_back(directory_target, named)


def test_a_rehearsal_says_what_it_would_cost_and_changes_nothing(
    directory_target: ChromaTarget, chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    add(chroma_directory)
    before = chroma_directory.path.stat()

    journal = roll_back(directory_target, MemoryJournal(tmp_path, dry_run=True))

    said = step(journal, "would go back")
    assert said["writes_lost"] == 1
    assert said["records_before"] == said["records"] + 1
    assert chroma_directory.path.stat().st_ino == before.st_ino
    assert all(step.planned for step in journal.steps[1:])


def test_what_cannot_be_renamed_is_refused_before_the_server_is_stopped(
    directory_target: ChromaTarget, chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(chroma_directory.path)
    linked = directory_target.model_copy(update={"path": link})

    with pytest.raises(NotReplaceable, match="symlink"):
        roll_back(linked, MemoryJournal(tmp_path))
    mounted = directory_target.model_copy(update={"path": Path("/proc")})
    with pytest.raises(NotReplaceable, match="mount point"):
        roll_back(mounted, MemoryJournal(tmp_path))


def test_a_damaged_server_that_ignores_term_is_killed_when_its_grace_is_over(
    managed_chroma: ManagedChroma, snapshot_dir: Path, tmp_path: Path
) -> None:
    target = managed_chroma.target(snapshots={"directory": snapshot_dir})
    pid = managed_chroma.process.inspect().pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    journal = MemoryJournal(tmp_path, seconds=SECONDS)

    snapshot_rollback.remedy(target, SnapshotRollback(stop_grace=0.2), journal)

    assert managed_chroma.process.inspect().pid != pid
    assert probe(target, SECONDS).healthy


def test_the_playbooks_script_is_read_and_never_run(
    directory_target: ChromaTarget, chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    script = tmp_path / "script.sh"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    script.chmod(0o755)
    chroma_directory.database.unlink()
    journal = MemoryJournal(tmp_path, seconds=SECONDS)

    snapshot_rollback.remedy(directory_target, SnapshotRollback(script=str(script)), journal)

    assert not (tmp_path / "ran").exists()


def test_an_application_that_still_has_the_old_directory_open_cannot_spoil_the_new_one(
    directory_target: ChromaTarget, chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    """SQLite refuses to write into a database whose name has been given to another."""
    said = json.dumps({"count": COUNT, "dimension": DIMENSION, "batch": 60})
    command = [sys.executable, "-m", "tests.chroma_child", "keep_adding"]
    with (tmp_path / "application.log").open("w") as log:
        application = subprocess.Popen(
            [*command, str(chroma_directory.path), said],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
        until(lambda: "added" in (tmp_path / "application.log").read_text(), seconds=60)

        roll_back(directory_target, MemoryJournal(tmp_path))

        until(lambda: application.poll() is not None, seconds=60, what="its writes are refused")
        application.communicate()
    assert probe(directory_target, SECONDS).healthy
    assert chroma_directory.as_seen()["count"] == COUNT
    assert not list(chroma_directory.path.glob("chroma.sqlite3-*"))


def test_a_snapshot_that_another_version_verified_is_opened_before_it_is_used(
    directory_target: ChromaTarget, chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    _, catalogue = taking.settings(directory_target)
    (known,) = catalogue.snapshots()
    place = catalogue.begin("older")
    shutil.copy(catalogue.archive(known.name), place)
    catalogue.commit(place, known.model_copy(update={"name": "older", "chroma": "0.5.0"}))
    chroma_directory.database.unlink()
    older = MemoryJournal(tmp_path, scope=RollbackScope(snapshot="older"))

    roll_back(directory_target, older)

    assert step(older, "looked at what was unpacked")["opened"]
    assert probe(directory_target, SECONDS).healthy


def test_a_snapshot_without_a_collection_is_never_used(
    directory_target: ChromaTarget, chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    _, catalogue = taking.settings(directory_target)
    (known,) = catalogue.snapshots()
    place = catalogue.begin("empty")
    shutil.copy(catalogue.archive(known.name), place)
    catalogue.commit(place, known.model_copy(update={"name": "empty", "collections": ()}))
    chroma_directory.database.unlink()

    with pytest.raises(SnapshotDamaged, match="no collection"):
        roll_back(directory_target, MemoryJournal(tmp_path, scope=RollbackScope(snapshot="empty")))

    assert not chroma_directory.database.exists()

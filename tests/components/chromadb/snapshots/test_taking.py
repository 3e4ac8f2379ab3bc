"""Snapshots are taken of directories in use, verified before they count, and kept for a while."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recovery.components.chromadb import exclusive
from recovery.components.chromadb.snapshots import taking, verifying
from recovery.components.chromadb.target import ChromaTarget
from recovery.deadline import Deadline
from recovery.errors import (
    DeadlineExceeded,
    NotConfigured,
    NotCopied,
    SnapshotDamaged,
    TargetBusy,
    TargetUnreachable,
    WontStop,
)
from recovery.version import __version__
from tests.chroma import COUNT, ChromaDirectory, ManagedChroma, ask, noise, overwrite
from tests.waiting import until

REF = "chromadb/default"


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir() if one.name != ".attempt")


def changed(target: ChromaTarget, **said: object) -> ChromaTarget:
    """The target with other settings of its snapshots."""
    settings = target.snapshots.model_copy(update=said)
    return target.model_copy(update={"snapshots": settings})


def test_a_snapshot_of_a_directory_in_use_holds_what_was_written_and_disturbs_nobody(
    directory_target: ChromaTarget, chroma_directory: ChromaDirectory, snapshot_dir: Path
) -> None:
    with chroma_directory.growing() as application:
        made = taking.take(directory_target, REF)
        # It fails the test where one of its writes fails.
        assert application.poll() is None

    assert made.method == "quiesce"
    assert made.stopped_seconds == 0
    assert {one.name for one in made.collections} == {"docs", "notes", "empty"}
    assert made.records >= COUNT + 3
    assert made.queried
    assert taking.settings(directory_target)[1].snapshots()[0].name == made.name
    assert (snapshot_dir / made.name).stat().st_mode & 0o077 == 0


def test_a_snapshot_may_stop_the_server_and_starts_it_again(
    managed_chroma: ManagedChroma, snapshot_dir: Path
) -> None:
    target = managed_chroma.target(snapshots={"directory": snapshot_dir, "method": "stop"})
    before = managed_chroma.process.inspect().id

    made = taking.take(target, REF)

    assert made.method == "stop"
    assert made.stopped_seconds > 0
    assert managed_chroma.served.answers()
    assert managed_chroma.process.inspect().id != before


def test_a_server_that_does_not_end_is_never_killed_for_a_snapshot(
    managed_chroma: ManagedChroma, snapshot_dir: Path
) -> None:
    said = {"directory": snapshot_dir, "method": "stop", "grace": 0.2}
    target = managed_chroma.target(snapshots=said, answer_timeout=0.5)
    pid = managed_chroma.process.inspect().pid
    assert pid is not None
    known = names(snapshot_dir)
    # It hears TERM when it goes on, and then somebody has to start it again.
    os.kill(pid, signal.SIGSTOP)
    awakening = threading.Timer(1.0, os.kill, (pid, signal.SIGCONT))
    awakening.start()

    with pytest.raises(WontStop, match="runs on"):
        taking.take(target, REF)

    assert names(snapshot_dir) == known
    awakening.join()
    # Noted until it answers, whoever sees to that.
    exclusive.start_again(target, managed_chroma.directory.path, Deadline(60).remaining)
    until(managed_chroma.served.answers, seconds=60)


def test_a_damaged_directory_gives_no_snapshot_that_counts(
    directory_target: ChromaTarget, chroma_directory: ChromaDirectory, snapshot_dir: Path
) -> None:
    known = names(snapshot_dir)
    noise(chroma_directory.segment / "data_level0.bin")

    with pytest.raises(SnapshotDamaged):
        taking.take(directory_target, REF)

    assert names(snapshot_dir) == known


def test_a_directory_that_lost_a_collection_does_not_push_out_what_is_worth_keeping(
    directory_target: ChromaTarget, chroma_directory: ChromaDirectory
) -> None:
    assert ask("delete", chroma_directory.path, name="docs").returncode == 0

    with pytest.raises(SnapshotDamaged, match="docs, which must have"):
        taking.take(directory_target, REF)


def test_only_so_many_are_kept(directory_target: ChromaTarget, snapshot_dir: Path) -> None:
    said: list[str] = []
    (old,) = names(snapshot_dir)

    made = taking.take(changed(directory_target, keep=1), REF, note=said.append)

    assert names(snapshot_dir) == [made.name]
    assert any(old in line for line in said)


def test_a_snapshot_is_due_when_the_interval_has_passed(
    directory_target: ChromaTarget, snapshot_dir: Path
) -> None:
    soon, late = (datetime.now(UTC) + timedelta(hours=hours) for hours in (1, 7))

    assert not taking.is_due(directory_target, soon)
    assert taking.is_due(directory_target, late)
    assert not taking.is_due(changed(directory_target, interval=None), late)
    shutil.rmtree(snapshot_dir)
    assert taking.is_due(directory_target, soon)


def test_what_has_no_place_is_told_which_key_is_missing(
    directory_target: ChromaTarget, chroma_directory: ChromaDirectory
) -> None:
    for unfit, key in (
        (changed(directory_target, directory=None), "snapshot_dir"),
        (changed(directory_target, directory=chroma_directory.path / "snapshots"), "inside"),
    ):
        with pytest.raises(NotConfigured, match=key):
            taking.take(unfit, REF)


def test_a_disk_without_room_is_refused_before_anything_is_copied(
    directory_target: ChromaTarget, snapshot_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = names(snapshot_dir)
    usage = shutil.disk_usage(snapshot_dir)
    full = type(usage)(usage.total, usage.total - 1_000_000, 1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)

    with pytest.raises(NotCopied, match="can be spared"):
        taking.take(directory_target, REF)

    assert names(snapshot_dir) == known


def test_a_lock_held_elsewhere_is_waited_for_and_not_for_ever(
    directory_target: ChromaTarget,
    chroma_directory: ChromaDirectory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("recovery.components.chromadb.snapshots.copying.LOCK_SECONDS", 0.3)
    with chroma_directory.locked(), pytest.raises(TargetUnreachable, match="locked"):
        taking.take(directory_target, REF)

    assert taking.take(directory_target, REF).records == COUNT + 3


def test_one_at_a_time(
    directory_target: ChromaTarget,
    chroma_directory: ChromaDirectory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(taking, "BUSY_SECONDS", 0.1)
    hold = (
        "import sys; from pathlib import Path;"
        "from recovery.components.chromadb.exclusive import alone\n"
        "with alone(Path(sys.argv[1]), 0): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(chroma_directory.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()

    with pytest.raises(TargetBusy):
        taking.take(directory_target, REF)

    holder.communicate()


def test_an_orphaned_folder_and_what_is_no_file_stay_out(
    directory_target: ChromaTarget, chroma_directory: ChromaDirectory
) -> None:
    orphan = chroma_directory.path / "00000000-0000-4000-8000-000000000000"
    orphan.mkdir()
    (orphan / "data_level0.bin").write_bytes(b"left behind")
    (chroma_directory.path / "link").symlink_to("/etc/passwd")
    os.mkfifo(chroma_directory.path / "pipe")
    (chroma_directory.path / "readme.txt").write_text("mine")

    made = taking.take(directory_target, REF)

    assert not [name for name in made.files if name.startswith(orphan.name)]
    assert "readme.txt" in made.files
    assert set(made.skipped) == {"link", "pipe"}


def test_a_snapshot_that_takes_too_long_does_not_count(
    directory_target: ChromaTarget, snapshot_dir: Path
) -> None:
    known = names(snapshot_dir)

    with pytest.raises(DeadlineExceeded):
        taking.take(changed(directory_target, timeout=0.001), REF)

    assert names(snapshot_dir) == known


def test_files_that_could_not_all_be_looked_at_are_not_said_to_be_judged(
    directory_target: ChromaTarget, chroma_directory: ChromaDirectory
) -> None:
    assert taking.take(directory_target, REF).judged_by == __version__

    # A format that this version does not know, and that Chroma may.
    overwrite(chroma_directory.segment / "header.bin", (9).to_bytes(4, "little"))
    assert not verifying.judge(chroma_directory.path, directory_target, lambda: 60.0)

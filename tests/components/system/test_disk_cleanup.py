"""What ``disk_cleanup`` removes from real filesystems, and what it never does."""

from __future__ import annotations

import gzip
import json
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recovery.components.system.disk_cleanup import DiskCleanup, disk_cleanup
from recovery.components.system.filesystems import Usage
from recovery.components.system.open_files import ByProcesses
from recovery.components.system.probe import probe
from recovery.components.system.survey import Age
from recovery.components.system.sweep import Changed, remove
from recovery.components.system.target import Band, HostTarget, HostThresholds
from recovery.config import load_policy
from recovery.errors import ConfigError, DeadlineExceeded, NothingFreed
from tests.components.system.conftest import Mount, fill, fill_up
from tests.journals import RECOVERY, MemoryJournal
from tests.waiting import until

AT_ONCE = 1e-9
"""Days; whatever exists is older."""

ALL = HostThresholds(disk_usage_percent=Band(unhealthy=0.02, healthy=0.01))
"""Nothing is ever well, so all that may go goes."""


def clean(
    tmp_path: Path,
    *paths: Path,
    limits: HostThresholds | None = None,
    journal: MemoryJournal | None = None,
    **parameters: Any,
) -> MemoryJournal:
    said = {"preserve_days": AT_ONCE, "cleanup_paths": [str(path) for path in paths], **parameters}
    target = HostTarget(thresholds=limits or HostThresholds())
    journal = journal or MemoryJournal(state_dir=tmp_path, seconds=30)
    disk_cleanup.remedy(target, DiskCleanup.model_validate(said), journal)
    return journal


def clean_all(tmp_path: Path, *paths: Path, **said: Any) -> MemoryJournal:
    """Whatever may go goes; that it is still not enough is no news."""
    journal = MemoryJournal(state_dir=tmp_path, seconds=30)
    try:
        clean(tmp_path, *paths, limits=ALL, journal=journal, **said)
    except NothingFreed as error:
        journal.note(str(error))
    return journal


def listed(folder: Path, recovery_id: str = RECOVERY) -> dict[str, Any]:
    """The manifest as path to bytes, or to ``kept``."""
    with gzip.open(folder / "kept" / recovery_id / "removed.jsonl.gz", "rt") as lines:
        return {path: fact for path, fact, *_ in map(json.loads, lines)}


def figure(journal: MemoryJournal, text: str, name: str) -> Any:
    return next(step.figures[name] for step in journal.steps if step.text.startswith(text))


def test_a_full_filesystem_loses_the_largest_first_and_no_more_than_it_must(
    tmp_path: Path, mount: Mount
) -> None:
    full = mount(16)
    largest = fill(full / "deep" / "er" / "largest", 4)
    small = fill_up(full, 1)
    target = HostTarget(filesystems=(str(full),))
    assert probe(target, 1).failure_type == "disk_full"

    clean(tmp_path, full)

    assert not largest.exists()
    assert all(path.exists() for path in small)
    assert Usage.of(str(full)).percent < 80
    found = probe(target, 1)
    assert found.healthy, found.summary


def test_of_files_of_one_size_the_oldest_go_first(tmp_path: Path, mount: Mount) -> None:
    full = mount(16)
    files = fill_up(full, 1)
    until(lambda: files[-1].stat().st_ctime < time.time() - 0.05)
    for path in files[1:]:
        path.touch()

    clean(tmp_path, full)

    assert not files[0].exists()
    assert sum(path.exists() for path in files[1:]) >= 10


def test_young_is_what_was_written_or_changed_lately(tmp_path: Path, mount: Mount) -> None:
    folder = mount()
    moved_here = fill(folder / "old-content", 1)
    os.utime(moved_here, (0, 0))
    written = fill(folder / "written", 1)

    clean_all(tmp_path, folder, preserve_days=1)

    assert moved_here.exists()
    os.utime(written, (2**33, 2**33))
    clean_all(tmp_path, folder)
    assert not moved_here.exists()
    assert written.exists()


def test_a_filesystem_that_is_well_is_left_alone(tmp_path: Path, mount: Mount) -> None:
    file = fill(mount() / "old", 1)

    clean(tmp_path, file.parent)

    assert file.exists()


def test_what_a_process_has_open_or_mapped_stays(tmp_path: Path, mount: Mount) -> None:
    folder = mount()
    for name in ("read", "written", "mapped", "elsewhere", "unused"):
        fill(folder / name, 0.1)
    script = "import sys; held = open(sys.argv[1]); print(1, flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(folder / "elsewhere")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    other.stdout.readline()
    with (folder / "mapped").open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    with (folder / "read").open("rb"), (folder / "written").open("ab"):
        journal = clean_all(tmp_path, folder)
    other.communicate(b"\n")
    mapping.close()

    assert sorted(path.name for path in folder.iterdir()) == [
        "elsewhere", "mapped", "read", "written",
    ]  # fmt: skip
    assert "4 open in a process" in figure(journal, "done below", "left_alone")


def test_a_file_with_a_name_elsewhere_frees_nothing_and_is_not_counted(
    tmp_path: Path, mount: Mount
) -> None:
    folder = mount()
    outside = folder / "outside"
    outside.mkdir()
    inside = folder / "inside"
    fill(inside / "shared", 2)
    (outside / "shared").hardlink_to(inside / "shared")
    fill(inside / "twice", 1)
    (inside / "twice-too").hardlink_to(inside / "twice")
    used = Usage.of(str(folder)).used

    journal = clean_all(tmp_path, inside)

    assert not list(inside.iterdir())
    freed = used - Usage.of(str(folder)).used
    assert figure(journal, "done below", "freed_mb") == pytest.approx(freed / 1e6, abs=0.001)
    assert (outside / "shared").stat().st_size == 2e6


def test_names_that_are_not_text_are_removed_and_shown_safely(tmp_path: Path, mount: Mount) -> None:
    folder = mount()
    strange = os.fsencode(folder) + b"/\xff\x1b[2J\n"
    Path(os.fsdecode(strange)).write_bytes(b"x" * 8192)

    planned = clean(tmp_path, folder, journal=MemoryJournal(dry_run=True))
    clean_all(tmp_path, folder)

    assert not list(folder.iterdir())
    assert any(r"\xff\x1b[2J\n" in step.text for step in planned.steps)
    assert os.fsdecode(strange) in listed(tmp_path)


def test_links_other_filesystems_and_bind_mounts_are_not_entered(
    tmp_path: Path, mount: Mount
) -> None:
    root = mount(8)
    precious = fill(root / "home" / "precious", 0.1)
    folder = root / "tmp"
    folder.mkdir()
    (folder / "link").symlink_to(precious.parent)
    (folder / "file-link").symlink_to(precious)
    mount(0, "--bind", str(precious.parent), at=folder / "bound")
    other = fill(mount(4, at=folder / "other") / "file", 0.1)
    fill(folder / "real" / "old", 0.1)

    journal = clean_all(tmp_path, folder)

    assert precious.exists()
    assert other.exists()
    assert not (folder / "real" / "old").exists()
    assert "2 on another filesystem" in figure(journal, "done below", "left_alone")


def test_a_policys_folder_that_is_reached_by_a_link_is_left_alone(
    tmp_path: Path, mount: Mount
) -> None:
    folder = mount()
    precious = fill(folder / "real" / "old", 0.1)
    (folder / "link").symlink_to(folder / "real")

    journal = clean_all(tmp_path, folder / "link")

    assert precious.exists()
    assert "symbolic link (link)" in journal.steps[0].text


def test_our_own_state_is_spared_wherever_it_lies(
    tmp_path: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = mount()
    monkeypatch.setenv("RECOVERY_STATE_DIR", str(folder / "state"))
    kept = fill(folder / "state" / "kept" / "dump", 0.1)
    fill(folder / "old", 0.1)

    clean_all(tmp_path, folder)
    refused = clean_all(tmp_path, folder / "state" / "kept")

    assert kept.exists()
    assert not (folder / "old").exists()
    assert "own state" in refused.steps[0].text


DANGEROUS = (
    "/", "//", "/.", "/etc", "/etc/", "/home", "/home/user", "/usr/share", "/var", "/root", "/bin",
    "/var/lib", "/proc/1", "/dev/shm", "/tmp/../etc", "tmp", "",
)  # fmt: skip


@pytest.mark.parametrize("path", DANGEROUS)
@pytest.mark.parametrize("key", ["cleanup_paths", "log_paths"])
def test_a_policy_that_calls_the_system_disposable_does_not_load(
    tmp_path: Path, path: str, key: str
) -> None:
    file = tmp_path / "policy.yml"
    file.write_text(
        "recovery:\n  system:\n    strategies:\n      - name: disk_cleanup\n"
        f"        {key}: ['/tmp', '{path}']\n"
    )

    with pytest.raises(ConfigError) as caught:
        load_policy(file, {})

    assert f":5: recovery.system.strategies[0].{key}" in caught.value.message
    assert caught.value.message.count(path) >= 1


@pytest.mark.parametrize("path", ["/tmp", "/var/tmp", "/root/.cache", "/var/cache/recovery"])
def test_the_playbooks_own_folders_are_allowed(path: str) -> None:
    assert DiskCleanup(cleanup_paths=(path,)).cleanup_paths == (path,)


def test_files_that_are_too_young_are_counted_where_nothing_else_helps(
    tmp_path: Path, mount: Mount
) -> None:
    full = mount(16)
    (full / "tmp" / "inner").mkdir(parents=True)
    written = time.time() - 3 * 86_400
    for number in range(5):
        fill(full / "tmp" / "inner" / str(number), 1)
        # Written long ago, and moved here just now.
        os.utime(full / "tmp" / "inner" / str(number), (written, written))
    journal = MemoryJournal(state_dir=tmp_path, seconds=30)

    with pytest.raises(NothingFreed, match="5 files are younger than preserve_days"):
        clean(tmp_path, full / "tmp", limits=ALL, journal=journal, preserve_days=1)

    assert figure(journal, "done below", "left_alone") == "5 too young"
    rehearsal = MemoryJournal(state_dir=tmp_path, seconds=30, dry_run=True)
    clean(tmp_path, full / "tmp", journal=rehearsal, preserve_days=1)
    assert figure(rehearsal, "remove old files", "too_young") == 5


def test_a_dry_run_removes_nothing_and_names_what_would_go(tmp_path: Path, mount: Mount) -> None:
    folder = mount()
    file = fill(folder / "old", 1)

    journal = clean(tmp_path, folder, journal=MemoryJournal(state_dir=tmp_path, dry_run=True))

    assert file.exists()
    assert [step.planned for step in journal.steps if step.text == f"remove {file}"] == [True]
    assert figure(journal, "remove old files below", "files") == 1
    assert not (tmp_path / "kept").exists()


def test_all_that_goes_is_listed_even_where_the_list_is_on_the_full_disk(
    tmp_path: Path, mount: Mount
) -> None:
    full = mount(16)
    files = fill_up(full / "tmp", 1)
    until(lambda: Usage.of(str(full)).percent == 100)

    clean(tmp_path, full / "tmp", journal=MemoryJournal(state_dir=full, seconds=30))

    gone = {str(path) for path in files if not path.exists()}
    assert gone
    assert {path for path, fact in listed(full).items() if fact != "kept"} == gone


def test_a_filesystem_without_inodes_gets_some_back(tmp_path: Path, mount: Mount) -> None:
    folder = mount(16, "-t", "tmpfs", "-o", "size=16m,nr_inodes=300", "tmpfs")
    target = HostTarget(filesystems=(str(folder),))
    for number in range(300):
        try:
            (folder / str(number)).touch()
        except OSError:
            break
    assert probe(target, 1).failure_type == "inode_exhaustion"

    clean(tmp_path, folder)

    assert probe(target, 1).healthy
    assert Usage.of(str(folder)).inode_percent > 75


def test_a_cleanup_that_is_killed_has_listed_all_that_it_removed(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    for number in range(6000):
        (folder / str(number)).write_bytes(b"x")
    script = (
        "from tests.components.system.test_disk_cleanup import *;"
        "clean_all(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(folder)])
    until(lambda: sum(1 for _ in folder.iterdir()) < 5000, seconds=60, what="some are gone")

    process.send_signal(signal.SIGKILL)
    process.wait()

    gone = {str(folder / str(number)) for number in range(6000)} - {
        str(path) for path in folder.iterdir()
    }
    assert 0 < len(gone) < 6000
    text = (tmp_path / "kept" / RECOVERY / "removed.jsonl.gz").read_bytes()
    assert gone <= {json.loads(line)[0] for line in gzip.decompress(text).splitlines()}


def test_when_the_time_is_over_everything_is_let_go(tmp_path: Path, mount: Mount) -> None:
    folder = mount()
    for number in range(300):
        fill(folder / str(number // 10) / str(number), 0.01)
    descriptors = set(Path("/proc/self/fd").iterdir())

    with pytest.raises(DeadlineExceeded):
        clean(
            tmp_path, folder, limits=ALL, journal=MemoryJournal(state_dir=tmp_path, seconds=0.001)
        )

    assert set(Path("/proc/self/fd").iterdir()) == descriptors


@pytest.mark.usefixtures("nobody")
def test_what_may_not_be_read_or_claimed_is_skipped(tmp_path: Path, mount: Mount) -> None:
    os.seteuid(0)
    folder = mount()
    folder.chmod(0o777)
    closed = fill(folder / "closed" / "file", 0.1)
    closed.parent.chmod(0o700)
    foreign = fill(folder / "foreign", 0.1)
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    os.seteuid(65534)
    own = fill(folder / "own", 0.1)

    clean_all(tmp_path, folder)

    os.seteuid(0)
    assert closed.exists()
    assert foreign.exists()
    assert not own.exists()


HOLDER = """
import mmap, os, sys
path, how = sys.argv[1:]
held = open(path, "r+b")
if how == "mapped":
    mapping = mmap.mmap(held.fileno(), 0)
os.unlink(path)
print("held", flush=True)
input()
"""


@pytest.fixture
def holder(request: pytest.FixtureRequest) -> Any:
    """Starts processes that hold a file which they have deleted."""

    def start(path: Path, how: str = "open") -> int:
        command = [sys.executable, "-c", HOLDER, str(path), how]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        request.addfinalizer(lambda: process.communicate(b"\n"))
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        return process.pid

    return start


def test_who_holds_deleted_files_is_named_when_nothing_can_go(
    tmp_path: Path, mount: Mount, holder: Any
) -> None:
    folder = mount()
    pid = holder(fill(folder / "ghost", 14.5))
    target = HostTarget(filesystems=(str(folder),))
    assert not probe(target, 1).healthy

    journal = MemoryJournal(state_dir=tmp_path)
    with pytest.raises(NothingFreed, match=rf"python\S* \({pid}\)"):
        clean(tmp_path, folder, journal=journal)

    assert figure(journal, f"deleted and still open: {folder}/ghost", "pid") == pid


def test_a_policy_may_have_deleted_files_emptied_but_never_mapped_ones(
    tmp_path: Path, mount: Mount, holder: Any
) -> None:
    folder = mount(32)
    holder(fill(folder / "mapped", 8), "mapped")
    holder(fill(folder / "open", 20))
    (folder / "elsewhere").mkdir()
    holder(fill(folder / "elsewhere" / "open", 1))

    clean_all(tmp_path, folder / "elsewhere", truncate_deleted=True)
    assert Usage.of(str(folder)).used == pytest.approx(28e6, rel=0.01)
    clean_all(tmp_path, folder, truncate_deleted=True)
    assert Usage.of(str(folder)).used == pytest.approx(8e6, rel=0.01)


def test_what_vanishes_is_no_error_and_what_grows_meanwhile_stays_whole(
    tmp_path: Path, mount: Mount
) -> None:
    folder = mount(64)
    for kind in ("old", "vanishing", "growing"):
        for number in range(400):
            fill(folder / kind / str(number), 0.01)
    second = 1.0
    until(lambda: time.time() - (folder / "growing" / "399").stat().st_ctime > 2 * second)
    stop = threading.Event()
    growing = [folder / "growing" / str(number) for number in range(400)]

    def meddle() -> None:
        for number in range(400):
            (folder / "vanishing" / str(number)).unlink(missing_ok=True)
            for path in growing[:: 1 + number % 7]:
                if stop.is_set():
                    return
                with path.open("ab") as sink:
                    sink.write(b"x")

    for path in growing:
        with path.open("ab") as sink:
            sink.write(b"x")
    meddling = threading.Thread(target=meddle)
    meddling.start()
    journal = clean_all(tmp_path, folder, preserve_days=second / 86_400)
    stop.set()
    meddling.join()

    assert not list((folder / "old").iterdir())
    assert all(path.stat().st_size > 10_000 for path in growing)
    (report,) = (step for step in journal.steps if step.text.startswith("done below"))
    assert int(report.figures["files"] or 0) <= 800


def test_a_file_that_changes_between_look_and_removal_stays(tmp_path: Path) -> None:
    """Each in the one moment in which it could matter."""
    folder = tmp_path / "folder"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    age, held = Age(seconds=0.3), ByProcesses()

    def looked_at(name: str) -> os.stat_result:
        (folder / name).write_bytes(b"old")
        os.utime(folder / name, (0, 0))
        return (folder / name).stat()

    names = ("grown", "replaced", "linked", "old")
    seen = {name: looked_at(name) for name in names}
    until(lambda: time.time() > seen["old"].st_ctime + 0.4)
    age = replace(age, now=time.time())
    (folder / "grown").write_bytes(b"new")
    (folder / "other").write_bytes(b"other")
    (folder / "other").replace(folder / "replaced")
    (folder / "linked").unlink()
    (folder / "linked").symlink_to(folder / "old")

    try:
        for name in ("grown", "replaced"):
            with pytest.raises(Changed):
                remove(descriptor, name, seen[name].st_ino, age, held)
        with pytest.raises(OSError, match="symbolic links"):
            remove(descriptor, "linked", seen["linked"].st_ino, age, held)
        remove(descriptor, "old", seen["old"].st_ino, age, held)
    finally:
        os.close(descriptor)

    assert sorted(path.name for path in folder.iterdir()) == ["grown", "linked", "replaced"]


def test_more_files_than_are_remembered_go_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recovery.components.system.survey.MOST_BEST", 10)
    monkeypatch.setattr("recovery.components.system.seen.MOST_BYTES", 5_000)
    folder = tmp_path / "old"
    for number in range(400):
        fill(folder / str(number // 50) / str(number), 0.01)

    clean_all(tmp_path, folder)

    assert not [path for path in folder.rglob("*") if path.is_file()]
    assert len(listed(tmp_path)) == 400

"""Old logs are compressed, whole or not at all, and never under a writer's hands."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from recovery.components.system.disk_cleanup import DiskCleanup, disk_cleanup
from recovery.components.system.old_logs import Untouched, compress
from recovery.components.system.open_files import InUse
from recovery.components.system.survey import Age
from recovery.components.system.target import Band, HostTarget, HostThresholds
from tests.components.system.conftest import Mount
from tests.components.system.test_disk_cleanup import AT_ONCE
from tests.journals import MemoryJournal
from tests.waiting import until

LINE = b"2025-01-01 00:00:00 worker[1]: nothing happened, and it happened again\n"


def write_log(path: Path, mb: float = 4) -> bytes:
    content = LINE * int(mb * 1e6 / len(LINE))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return content


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def compress_here(path: Path) -> int:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return compress(folder, path.name, Age(seconds=1e-9), lambda: 1.0)
    finally:
        os.close(folder)


def clean(tmp_path: Path, *logs: Path, preserve_days: float = AT_ONCE) -> MemoryJournal:
    journal = MemoryJournal(state_dir=tmp_path, seconds=30)
    limits = HostThresholds(disk_usage_percent=Band(unhealthy=85, healthy=50))
    parameters = DiskCleanup(log_paths=tuple(map(str, logs)), preserve_days=preserve_days)
    disk_cleanup.remedy(HostTarget(thresholds=limits), parameters, journal)
    return journal


def test_old_logs_are_compressed_until_there_is_room_and_nothing_else_is(
    tmp_path: Path, mount: Mount
) -> None:
    folder = mount(16)
    content = write_log(folder / "app" / "big.log", 6)
    rotated = write_log(folder / "app.log.1", 3)
    small = write_log(folder / "small.log", 1)
    table = write_log(folder / "table.db", 2)
    (folder / "app" / "big.log").chmod(0o640)

    journal = clean(tmp_path, folder)

    with gzip.open(folder / "app" / "big.log.gz") as packed:
        assert packed.read() == content
    assert (folder / "app" / "big.log.gz").stat().st_mode & 0o777 == 0o640
    assert names(folder) == [
        "app", "app.log.1", "small.log", "table.db",
    ]  # fmt: skip
    assert (folder / "app.log.1").read_bytes() == rotated
    assert (folder / "small.log").read_bytes() == small
    assert (folder / "table.db").read_bytes() == table
    done = next(step for step in journal.steps if step.text.startswith("done"))
    assert done.figures["compressed"] == 1
    assert float(done.figures["freed_mb"] or 0) > 5.5


def test_a_log_that_somebody_has_open_is_left_alone(tmp_path: Path) -> None:
    content = write_log(tmp_path / "app.log")

    with (tmp_path / "app.log").open("ab"), pytest.raises(InUse):
        compress_here(tmp_path / "app.log")

    assert (tmp_path / "app.log").read_bytes() == content
    assert names(tmp_path) == ["app.log"]


def test_who_opens_the_log_meanwhile_gets_it_as_it_was(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    content = write_log(log)
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)

    def somebody_comes() -> float:
        with pytest.raises(BlockingIOError):
            os.open(log, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
        return 1.0

    with pytest.raises(InUse):
        compress(folder, log.name, Age(seconds=1e-9), somebody_comes)
    os.close(folder)

    assert log.read_bytes() == content
    assert names(tmp_path) == ["app.log"]


def test_another_files_compressed_copy_is_never_replaced(tmp_path: Path) -> None:
    write_log(tmp_path / "app.log")
    (tmp_path / "app.log.gz").write_bytes(gzip.compress(b"last week's"))

    with pytest.raises(Untouched):
        compress_here(tmp_path / "app.log")

    assert gzip.decompress((tmp_path / "app.log.gz").read_bytes()) == b"last week's"
    assert (tmp_path / "app.log").exists()


def test_a_log_with_another_name_would_free_nothing(tmp_path: Path) -> None:
    write_log(tmp_path / "app.log")
    (tmp_path / "same").hardlink_to(tmp_path / "app.log")

    with pytest.raises(Untouched):
        compress_here(tmp_path / "app.log")


def test_a_full_disk_leaves_the_log_and_no_rubbish(tmp_path: Path, mount: Mount) -> None:
    folder = mount(4)
    (folder / "noise.log").write_bytes(os.urandom(2_500_000))

    with pytest.raises(OSError, match="space"):
        compress_here(folder / "noise.log")

    assert names(folder) == ["noise.log"]


ASIDE = ".app.log.recovery-aside"
KILLED = """
import os, signal, sys
from pathlib import Path
from tests.components.system.test_old_logs import ASIDE, compress_here

log, stop_at = Path(sys.argv[1]), sys.argv[2]
real = getattr(os, stop_at)

def stop(name, *others, **said):
    if stop_at != "unlink" or name == ASIDE:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(name, *others, **said)

setattr(os, stop_at, stop)
compress_here(log)
"""


@pytest.mark.kill
@pytest.mark.parametrize("stop_at", ["fsync", "link", "rename", "unlink"])
def test_killed_at_any_line_a_second_run_ends_the_work(tmp_path: Path, stop_at: str) -> None:
    content = write_log(tmp_path / "logs" / "app.log")
    log = tmp_path / "logs" / "app.log"
    done = subprocess.run([sys.executable, "-c", KILLED, str(log), stop_at], check=False)
    assert done.returncode == -signal.SIGKILL
    if stop_at == "unlink":
        assert names(log.parent) == [ASIDE, "app.log.gz"]
        assert gzip.decompress((log.parent / "app.log.gz").read_bytes()) == content
    else:
        assert log.read_bytes() == content

    until(lambda: compress_here(log) > 0)

    assert names(log.parent) == ["app.log.gz"]
    assert gzip.decompress((log.parent / "app.log.gz").read_bytes()) == content


def test_who_opens_the_log_in_the_last_moment_loses_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "app.log"
    content = write_log(log)
    writers: list[subprocess.Popen[bytes]] = []

    def a_writer_comes(act: Any) -> Any:
        def acting(name: Any, *others: Any, **said: Any) -> Any:
            if name == log.name and not writers:
                writers.append(subprocess.Popen(["sh", "-c", f"echo last >> {log}"]))
                until(is_waited_for, what="it waits for the lease")
            return act(name, *others, **said)

        return acting

    # Whatever takes the name away: nothing was seen of the writer when it was decided.
    for call in ("unlink", "rename"):
        monkeypatch.setattr(os, call, a_writer_comes(getattr(os, call)))

    with pytest.raises(InUse):
        compress_here(log)

    assert writers[0].wait(60) == 0
    assert log.read_bytes() == content + b"last\n"


def is_waited_for() -> bool:
    """Whether the kernel holds up somebody who opens a file that this process has a lease on."""
    return any(
        {"LEASE", "BREAKING", str(os.getpid())} <= set(line.split())
        for line in Path("/proc/locks").read_text().splitlines()
    )


def test_what_a_killed_run_put_aside_gets_its_name_back_and_its_drafts_go(
    tmp_path: Path, mount: Mount
) -> None:
    folder = mount(16)
    content = write_log(folder / ASIDE, 9)
    (folder / ".app.log.1.recovery-draft").write_bytes(os.urandom(3_000_000))

    clean(tmp_path, folder)

    assert names(folder) == ["app.log.gz"]
    assert gzip.decompress((folder / "app.log.gz").read_bytes()) == content


def test_one_that_was_put_aside_a_moment_ago_is_as_old_as_its_content(
    tmp_path: Path, mount: Mount
) -> None:
    folder = mount(16)
    content = write_log(folder / "app.log", 5)
    young = write_log(folder / "young.log", 5.5)
    second = 1.0
    until(lambda: time.time() - (folder / "app.log").stat().st_ctime > second)
    (folder / "app.log").rename(folder / ASIDE)
    (folder / "young.log").chmod(0o640)

    clean(tmp_path, folder, preserve_days=second / 86_400)

    assert names(folder) == ["app.log.gz", "young.log"]
    assert gzip.decompress((folder / "app.log.gz").read_bytes()) == content
    assert (folder / "young.log").read_bytes() == young


def test_one_that_lies_aside_never_replaces_another_of_its_name(tmp_path: Path) -> None:
    earlier = write_log(tmp_path / ASIDE, 1)
    content = write_log(tmp_path / "app.log", 2)

    with pytest.raises(Untouched, match="lies aside"):
        compress_here(tmp_path / "app.log")

    assert (tmp_path / ASIDE).read_bytes() == earlier
    assert (tmp_path / "app.log").read_bytes() == content

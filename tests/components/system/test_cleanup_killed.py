"""``disk_cleanup`` killed at random moments: what is gone was named first, no log loses a line.

``RECOVERY_KILLS``: how often, where somebody wants to know for sure.
"""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from recovery.components.system.disk_cleanup import DiskCleanup, disk_cleanup
from recovery.components.system.filesystems import Usage
from recovery.components.system.manifest import FILE
from recovery.components.system.probe import probe
from recovery.components.system.target import Band, HostTarget, HostThresholds
from tests.components.system.conftest import Mount
from tests.components.system.test_disk_cleanup import AT_ONCE
from tests.components.system.test_old_logs import names, write_log
from tests.journals import MemoryJournal
from tests.waiting import until

KILLS = int(os.environ.get("RECOVERY_KILLS", "36"))
IN_A_ROW = 2
FILES = 1500
MOMENTS = ("", "removed the largest", "compressed")
"""Of the journal; the time until the kill counts from one of them, or from the beginning."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])

WRITER = """
import sys, time
with open(sys.argv[1], "a", buffering=1) as log:
    number = 0
    while True:
        log.write(f"line {number}\\n")
        number += 1
        time.sleep(0.001)
"""


class Disk:
    """A full disk: old files, two old logs, and a rotated one that its daemon still writes."""

    def __init__(self, folder: Path, tmp_path: Path, number: int) -> None:
        self.tmp, self.logs = folder / "tmp", folder / "logs"
        self.files = self._fill()
        self.written = {name: write_log(self.logs / name, 4) for name in ("a.log", "b.log.1")}
        self.rotated = self.logs / "app.log.1"
        write_log(self.rotated, 1)
        self.journal = MemoryJournal(tmp_path, recovery_id=f"killed-{number}")
        limits = HostThresholds(disk_usage_percent=Band(unhealthy=30, healthy=15))
        self.target = HostTarget(filesystems=(str(folder),), thresholds=limits, watch=("disk",))

    def _fill(self) -> set[str]:
        for number in range(FILES):
            path = self.tmp / str(number % 40) / str(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(4096))
        return self._present()

    def _present(self) -> set[str]:
        return {str(path) for path in self.tmp.rglob("*") if path.is_file()}

    def clean(self) -> None:
        self.journal.begin(60)
        paths = {"cleanup_paths": [str(self.tmp)], "log_paths": [str(self.logs)]}
        parameters = DiskCleanup.model_validate({"preserve_days": AT_ONCE, **paths})
        disk_cleanup.remedy(self.target, parameters, self.journal)

    def look(self) -> str:
        """What must hold at any moment; where the cleanup was."""
        gone = self.files - self._present()
        assert gone <= self._named(), "removed and not named"
        for name, content in self.written.items():
            assert content in self._copies(name), f"{name} is neither whole nor compressed"
        compressed = sum((self.logs / f"{name}.gz").exists() for name in self.written)
        return f"{'some' if gone else 'no'} files gone, {compressed} logs compressed"

    def _named(self) -> set[str]:
        path = self.journal.state_dir / "kept" / self.journal.recovery_id / FILE
        if not path.exists():
            return set()
        lines = gzip.decompress(path.read_bytes()).splitlines()
        return {json.loads(line)[0] for line in lines}

    def _copies(self, name: str) -> Iterator[bytes]:
        for path in (self.logs / name, self.logs / f".{name}.recovery-aside"):
            if path.exists():
                yield path.read_bytes()
        if (self.logs / f"{name}.gz").exists():
            yield gzip.decompress((self.logs / f"{name}.gz").read_bytes())


def _clean(disk: Disk, environ: dict[str, str], reached: Event, moment: str) -> None:
    # The server that forks may have been started with another environment.
    os.environ.update(environ)
    if moment:
        disk.journal.after(moment, reached.set)
    else:
        reached.set()
    try:
        disk.clean()
    finally:
        # A run that resumes another may have nothing of the kind left to do.
        reached.set()


@pytest.mark.timeout(600)
@pytest.mark.kill
@pytest.mark.slow
def test_a_cleanup_killed_at_any_moment_names_what_is_gone_and_loses_no_line(
    tmp_path: Path, mount: Mount
) -> None:
    seen: Counter[str] = Counter()
    folder = mount(20)
    for number in range(-(-KILLS // IN_A_ROW)):
        for left in folder.iterdir():
            shutil.rmtree(left)
        disk = Disk(folder, tmp_path, number)
        assert not probe(disk.target, 1).healthy
        writer = writing(disk.rotated)
        try:
            for _ in range(IN_A_ROW):
                kill_somewhere(disk)
                seen[disk.look()] += 1
            disk.clean()
            seen[disk.look()] += 0
        finally:
            writer.kill()
            writer.wait()

        assert probe(disk.target, 1).healthy, Usage.of(str(disk.tmp))
        assert names(disk.logs) == ["a.log.gz", "app.log.1", "b.log.1.gz"]
        lines = [line for line in disk.rotated.read_text().splitlines() if "line" in line]
        assert lines == [f"line {count}" for count in range(len(lines))]
    assert len(seen) > 1, seen


def writing(log: Path) -> subprocess.Popen[bytes]:
    before = log.stat().st_size
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(log)])
    until(lambda: log.stat().st_size > before, what="it writes")
    return writer


def kill_somewhere(disk: Disk) -> None:
    reached = _context.Event()
    arguments = (disk, dict(os.environ), reached, random.choice(MOMENTS))
    child = _context.Process(target=_clean, args=arguments)
    child.start()
    reached.wait()
    time.sleep(0.15 * random.random() ** 3)
    child.kill()
    child.join()

"""A filesystem whose server has died: whoever asks for a file there waits for ever. We do not."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.components.system import filesystems
from recovery.components.system.evidence import evidence
from recovery.components.system.filesystems import Usage
from recovery.components.system.probe import probe
from recovery.components.system.target import HostTarget
from tests.components.system.conftest import Mount, fill_up
from tests.components.system.test_disk_cleanup import clean
from tests.journals import MemoryJournal


@pytest.fixture
def dead(tmp_path: Path) -> Iterator[Path]:
    """A FUSE filesystem that was mounted and is never served: as a network one without network."""
    folder = tmp_path / "dead server"
    folder.mkdir()
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"no FUSE here: {error}")
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"nobody", os.fsencode(folder), b"fuse", 0, options.encode()):
        os.close(device)
        pytest.skip(f"no FUSE here: {os.strerror(ctypes.get_errno())}")
    yield folder
    # Whoever still waits is let go by this.
    os.close(device)
    subprocess.run(["umount", "-l", str(folder)], check=True)
    for stuck in list(filesystems.FOREVER_STUCK.values()):
        stuck.join(10)
    filesystems.FOREVER_STUCK.clear()


def test_the_probe_says_which_filesystem_does_not_answer_and_reads_the_others(
    dead: Path, mount: Mount
) -> None:
    living = mount(8)
    target = HostTarget(filesystems=(str(dead), str(living)), watch=("disk",))

    report = probe(target, 1)

    assert report.failure_type == "filesystem_unavailable"
    assert f"{dead} does not answer" in report.summary
    assert report.figures["disk_path"] == str(living)


def test_a_cleanup_leaves_a_dead_folder_alone_and_cleans_the_others(
    dead: Path, mount: Mount, tmp_path: Path
) -> None:
    full = mount(16)
    fill_up(full, 1)

    journal = clean(tmp_path, dead / "cache", full, journal=MemoryJournal(state_dir=tmp_path))

    assert Usage.of(str(full)).percent < 80
    assert any(
        text.startswith(f"left alone: {dead}/cache does not answer") for text in journal.texts
    )


def test_who_waits_for_a_dead_server_holds_up_neither_evidence_nor_cleanup(
    dead: Path, mount: Mount, tmp_path: Path
) -> None:
    """A process has its working folder there, and another one waits for a file of it."""
    script = "import sys; open(sys.argv[1])"
    waiting = subprocess.Popen([sys.executable, "-c", script, str(dead / "file")])
    full = mount(16)
    fill_up(full, 1)
    target = HostTarget(filesystems=(str(dead), str(full)))
    found: list[object] = []
    asking = threading.Thread(
        target=lambda: found.append(evidence(target, 5)), name="evidence", daemon=True
    )

    asking.start()
    asking.join(30)

    assert found, "the evidence is there"
    assert str(dead) in filesystems.dead()
    clean(tmp_path, full, truncate_deleted=True)
    assert Usage.of(str(full)).percent < 80
    waiting.kill()
    waiting.wait()

"""Who has a file open, where no lease can tell: what may not be looked at counts as held."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.components.system import deleted
from tests.components.system.conftest import Mount, fill

HOLD = (
    "import os, sys; held = open(sys.argv[1]); os.setuid(65534); print('up', flush=True); input()"
)
ASK = """
import os, sys
from recovery.components.system import open_files

if sys.argv[1] == "sees all":
    open_files.OF_THE_HOST = os.readlink("/proc/self/ns/pid")
for path in sys.argv[2:]:
    with open(path) as held:
        status = os.fstat(held.fileno())
        print(open_files.ByProcesses().hold((status.st_dev, status.st_ino)))
"""
INSIDE = ("unshare", "--pid", "--fork", "--mount-proc")
"""In a process namespace of its own, as in a container."""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A file that another user's process has open."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("setpriv", "unshare"))):
        pytest.skip("takes root and the commands setpriv and unshare")
    path = tmp_path / "held"
    path.touch()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    yield path
    process.communicate(b"\n")


def answers(*paths: Path, by: tuple[str, ...], sees: str = "?", script: str = ASK) -> list[str]:
    command = [*by, sys.executable, "-c", script, sees, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unshare failed" in done.stderr:
        pytest.skip(f"no namespace can be made here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_root_that_may_not_look_at_everybody_takes_everything_for_held(held: Path) -> None:
    fewer = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace")

    assert answers(held, by=fewer) == ["True"]


def test_who_sees_the_processes_of_a_container_alone_takes_everything_for_held(held: Path) -> None:
    assert answers(held, by=INSIDE) == ["True"]


HOLD_AND_ASK = f"""
import subprocess, sys
with subprocess.Popen([sys.executable, "-c", {HOLD!r}, sys.argv[2]], stdin=-1, stdout=-1) as holder:
    holder.stdout.readline()
    exec({ASK!r})
    holder.communicate(b"\\n")
"""


def test_root_that_sees_everybody_knows_which_files_are_held(held: Path, tmp_path: Path) -> None:
    mine, free = tmp_path / "mine", tmp_path / "free"
    mine.touch()
    free.touch()

    found = answers(mine, free, held, by=INSIDE, sees="sees all", script=HOLD_AND_ASK)

    # The last is held by somebody outside: that is why only who sees all may say so.
    assert found == ["True", "False", "False"]


MAPPED = """
import ctypes, mmap, os, sys
held = [open(path, "r+b") for path in sys.argv[1:]]
mapping = mmap.mmap(held[0].fileno(), 0)
for path in sys.argv[1:]:
    os.unlink(path)
os.setuid(65534)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: its own user may look at it again
print("up", flush=True)
input()
print(len(mapping[:]), *(os.fstat(each.fileno()).st_size for each in held), flush=True)
"""


def test_without_root_a_deleted_file_that_is_mapped_is_not_emptied_under_its_process(
    tmp_path: Path, mount: Mount
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    folder = mount(32)
    paths = [str(fill(folder / name, 10)) for name in ("mapped", "open")]
    for path in paths:
        os.chown(path, 65534, 65534)
    process = subprocess.Popen(
        [sys.executable, "-c", MAPPED, *paths],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"

    device = folder.stat().st_dev
    os.seteuid(65534)
    try:
        ghosts = deleted.find([device], lambda: None)
        emptied = list(deleted.empty(ghosts, lambda: True, lambda: 1.0))
    finally:
        os.seteuid(0)
    said, _ = process.communicate("\n")

    assert process.returncode == 0
    assert said.split() == ["10000000", "10000000", "0"]
    assert [ghost.path for ghost in emptied] == [str(folder / "open")]

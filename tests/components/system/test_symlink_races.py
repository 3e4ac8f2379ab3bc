"""A folder that is swapped for a link while it is cleaned: nothing outside ever goes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.components.system.conftest import Mount
from tests.components.system.test_disk_cleanup import clean_all
from tests.waiting import until

FILES = 40
SIBLINGS = 200
ROUNDS = 25
HITS = 10


ATTACK = """
import os, select, sys
folder, aside, outside = sys.argv[1:]
swapped = 0
while not select.select([0], [], [], 0)[0]:
    os.rename(folder, aside)
    os.symlink(outside, folder)
    swapped += 1
    os.unlink(folder)
    os.rename(aside, folder)
print(swapped)
"""


@contextmanager
def attacker(folder: Path, outside: Path) -> Iterator[None]:
    """A process that swaps a folder for a link to another and back, as fast as it can."""
    command = [sys.executable, "-c", ATTACK, str(folder), str(aside(folder)), str(outside)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        until(lambda: not folder.exists() or folder.is_symlink(), what="the attack has begun")
        yield
    finally:
        swapped, _ = process.communicate(b"enough")
    assert int(swapped) > 100


def aside(folder: Path) -> Path:
    return folder.with_name("aside")


def plant(folder: Path) -> None:
    """Rubbish, where the folder is at this moment; nothing that is there is overwritten."""
    for number in range(FILES):
        with suppress(OSError), (folder / f"f{number}").open("x") as file:
            file.write("rubbish")


def clean_by_path(root: Path) -> None:
    """What a careless cleaner does: it looks at a folder, and removes by the path it had."""
    for where, _, names in os.walk(root):
        for name in names:
            path = os.path.join(where, name)  # noqa: PTH118
            if not os.path.islink(path):  # noqa: PTH114
                with suppress(FileNotFoundError, NotADirectoryError):
                    os.unlink(path)  # noqa: PTH108


def scene(root: Path) -> tuple[Path, Path, Path]:
    """What is cleaned, the folder in it that is swapped, and what lies outside."""
    tree, outside = root / "tree", root / "outside"
    victim = tree / "a" / "victim"
    inside = outside / "below"
    for folder in (victim / "below", inside):
        folder.mkdir(parents=True)
    # Their listing is read long before the last of them is entered: time for a swap.
    for number in range(SIBLINGS):
        (victim.parent / f"sibling{number}").mkdir()
    for number in range(FILES):
        (inside / f"f{number}").write_bytes(b"precious")
        (outside / f"f{number}").write_bytes(b"precious")
    return tree, victim, outside


def precious(outside: Path) -> int:
    return sum(1 for path in outside.rglob("f*") if path.read_bytes() == b"precious")


def test_this_attacker_fools_whoever_goes_by_path(mount: Mount) -> None:
    tree, victim, outside = scene(mount())

    def is_fooled() -> bool:
        plant(victim)
        clean_by_path(tree)
        return precious(outside) < 2 * FILES

    with attacker(victim, outside):
        until(is_fooled, seconds=30, what="a careless cleaner removes something outside")


def test_the_cleanup_is_never_led_outside(tmp_path: Path, mount: Mount) -> None:
    tree, victim, outside = scene(mount())
    removed = hits = 0

    def is_proven() -> bool:
        nonlocal removed, hits
        plant(aside(victim))
        plant(aside(victim) / "below")
        for step in clean_all(tmp_path, tree).steps:
            removed += int(step.figures.get("files") or 0)
            # What was a folder when it was listed was a link when it was to be entered.
            hits += "Not a directory" in str(step.figures.get("left_alone"))
        assert precious(outside) == 2 * FILES
        return removed > 0 and hits >= HITS

    with attacker(victim, outside):
        until(is_proven, seconds=120, what=f"the attack came in time {HITS} times")


def test_a_root_that_is_swapped_itself_is_left_alone_or_cleaned(
    tmp_path: Path, mount: Mount
) -> None:
    _, victim, outside = scene(mount())

    with attacker(victim, outside):
        for _ in range(ROUNDS):
            plant(aside(victim))
            clean_all(tmp_path, victim)

    assert precious(outside) == 2 * FILES

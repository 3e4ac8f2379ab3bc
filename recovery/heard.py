"""The files by which this host's workers show its probe that they take messages. No content.

An empty file in the state directory, named after the worker, its process id and its start, and
touched with every message: that works without the broker, and on a full disk once it is there.
Containers that share the directory have process ids of their own, and leave each other's alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from recovery import places
from recovery.runtime.daemonize import identity

FOLDER = "workers"


class Sign:
    """The file of the process that is the worker of that name: the one that asks."""

    def __init__(self, name: str) -> None:
        self._path = _folder() / f"{name}@{_mark(os.getpid())}"

    def begin(self) -> None:
        """Raises ``OSError``. Files of the dead go, whatever their name."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path.touch()
        for path in self._path.parent.glob("*@*"):
            if _is_here(path) and not _is_alive(path):
                path.unlink(missing_ok=True)

    def touch(self) -> None:
        with suppress(OSError):
            os.utime(self._path)


def living(name: str) -> Iterator[tuple[int, Path]]:
    """Process id and file of each process that lives and is this worker."""
    for path in sorted(_folder().glob(f"{name}@*")):
        if _is_here(path) and _is_alive(path):
            yield _pid(path), path


def _folder() -> Path:
    return places.state_dir() / FOLDER


def _is_alive(path: Path) -> bool:
    return path.name.endswith(f"@{_mark(_pid(path))}")


def _is_here(path: Path) -> bool:
    return re.search(rf"@{_namespace()}-\d+-\d+$", path.name) is not None


def _pid(path: Path) -> int:
    return int(path.name.rpartition("@")[2].split("-")[1])


def _mark(pid: int) -> str | None:
    """Namespace, process id and start in clock ticks; None where it is dead."""
    found = identity(pid)
    return found and "-".join([str(_namespace()), *found.split()[:2]])


def _namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino

"""Which files processes hold: asked of the kernel a file at a time, or read from ``/proc``."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import signal
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from recovery.components.system import filesystems

PROC = Path("/proc")
DELETED = " (deleted)"

OF_THE_HOST = "pid:[4026531836]"
"""The process namespace in which everybody is seen; the kernel gives it this number for good."""

_FRESH_SECONDS = 2.0
_NO_LEASES = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOLCK})

_is_sigio_ignored = False

Identity = tuple[int, int]


class InUse(Exception):
    """A file may not be touched; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A descriptor of a process that leads to a file. ``path`` is as the kernel writes it."""

    pid: int
    process: str
    descriptor: str
    path: str
    status: os.stat_result

    @property
    def identity(self) -> Identity:
        return self.status.st_dev, self.status.st_ino

    @property
    def link(self) -> Path:
        return PROC / str(self.pid) / "fd" / self.descriptor


def claim(descriptor: int, others: ByProcesses | None = None) -> bool:
    """Make sure that nobody else has this file open; raises ``InUse``.

    The kernel grants a write lease only on a file that nobody else has open or mapped, in whatever
    container; who opens it then waits until we close it. False where the filesystem has no leases,
    so that ``others`` were asked, which is true for a moment only.
    """
    if not _is_sigio_ignored:
        # The kernel's default, SIGIO, would end this process when somebody opens the file.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise InUse("open in a process") from error
        if error.errno not in _NO_LEASES:
            raise InUse(f"not ours to claim: {error.strerror}") from error
        status = os.fstat(descriptor)
        if others is not None and others.hold((status.st_dev, status.st_ino)):
            raise InUse("open in a process") from error
        return False
    return True


@contextmanager
def no_signal_of_leases() -> Iterator[None]:
    """Ignore SIGIO meanwhile, which spares a system call a file; only a main thread can do that."""
    global _is_sigio_ignored  # noqa: PLW0603 - what becomes of a signal is the process's, too
    if threading.current_thread() is not threading.main_thread() or _is_sigio_ignored:
        yield
        return
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    _is_sigio_ignored = True
    try:
        yield
    finally:
        _is_sigio_ignored = False
        signal.signal(signal.SIGIO, before or signal.SIG_DFL)


def is_wanted_by_others(descriptor: int) -> bool:
    """Whether somebody waits to open a file that we claimed by a lease."""
    return fcntl.fcntl(descriptor, fcntl.F_GETLEASE) != fcntl.F_WRLCK


class ByProcesses:
    """Whether a file that we have open once is held by anybody else, as ``/proc`` says.

    Read anew every two seconds; everything is held where we may not look at all others: without
    root's rights, without a capability that root in a container lacks, or seeing that one alone.
    """

    def __init__(self) -> None:
        self._known: frozenset[Identity] = frozenset()
        self._is_blind = os.geteuid() != 0 or os.readlink(PROC / "self/ns/pid") != OF_THE_HOST  # noqa: PTH115
        self._read_at = -math.inf

    def hold(self, identity: Identity) -> bool:
        if self._is_blind:
            return True
        if time.monotonic() > self._read_at + _FRESH_SECONDS:
            hidden: set[int] = set()
            held = Counter(each.identity for each in descriptors(hidden=hidden.add))
            # Ours is among them.
            held[identity] -= 1
            self._known = frozenset({*+held, *mapped(hidden=hidden.add)})
            self._is_blind = bool(hidden)
            self._read_at = time.monotonic()
        return self._is_blind or identity in self._known


def descriptors(
    tick: Callable[[], object] = lambda: None, *, hidden: Callable[[int], object] = lambda _: None
) -> Iterator[Held]:
    """Every descriptor of every process that leads to a regular file, as far as we may look.

    ``tick`` is called once a process, and may raise; ``hidden`` with each that we may not look at.
    """
    dead = filesystems.dead()
    for pid in _pids():
        tick()
        folder = PROC / str(pid) / "fd"
        try:
            names = os.listdir(folder)  # noqa: PTH208 - a Path a descriptor would be the cost
        except PermissionError:
            hidden(pid)
            continue
        except OSError:
            continue
        process = name_of(pid)
        for name in names:
            try:
                path = os.readlink(f"{folder}/{name}")  # noqa: PTH115 - likewise
                # What is no file has no path, and a file of a dead server would hold us up.
                if not path.startswith("/") or filesystems.is_below(path, dead):
                    continue
                status = os.stat(f"{folder}/{name}")  # noqa: PTH116 - likewise
                if stat.S_ISREG(status.st_mode):
                    yield Held(
                        pid=pid,
                        process=process,
                        descriptor=name,
                        path=path,
                        status=status,
                    )
            except PermissionError:
                hidden(pid)
            except OSError:
                continue


def mapped(*, hidden: Callable[[int], object] = lambda _: None) -> Iterator[Identity]:
    """Every file that a process has mapped, as far as we may look; ``hidden`` as above."""
    dead = filesystems.dead()
    for pid in _pids():
        asked: set[str] = set()
        try:
            ranges = os.listdir(PROC / str(pid) / "map_files")  # noqa: PTH208
        except PermissionError:
            hidden(pid)
            continue
        except OSError:
            continue
        for span in ranges:
            try:
                path = f"{PROC}/{pid}/map_files/{span}"
                leads_to = os.readlink(path)  # noqa: PTH115
                if leads_to in asked or filesystems.is_below(leads_to, dead):
                    continue
                status = os.stat(path)  # noqa: PTH116
            except PermissionError:
                hidden(pid)
                continue
            except OSError:
                continue
            asked.add(leads_to)
            yield status.st_dev, status.st_ino


def inodes_mapped_by(pid: int) -> Iterator[int]:
    """Of every file that a process has mapped, for whoever may not follow to the files themselves:
    the number alone, since the device that is said here is not always that of the file."""
    try:
        ranges = (PROC / str(pid) / "maps").read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in ranges:
        inode = int(line.split(maxsplit=5)[4])
        if inode:
            yield inode


def name_of(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text(errors="backslashreplace").strip()
    except OSError:
        return "?"


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir(PROC) if name.isdecimal())  # noqa: PTH208

"""Having the other worker processes of this host collect their garbage, without a broker.

A process that can be asked says so by an empty file in the state directory, named by its process id
and the time of its start. It is asked by a signal, and answers by touching its file, which works on
a full disk too. A process that never said so is never signalled.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from recovery.runtime.daemonize import identity

SIGNAL = signal.SIGUSR2
FOLDER = "processes"

ANSWER_SECONDS = 2.0
"""How long a process is waited for; one that sits in a long call into C answers later."""

_PAUSE = 0.005
_NAME = re.compile(r"\d+-\d+-\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What one process gave back: bytes of resident memory, and descriptors.

    ``answered`` in time or not.
    """

    pid: int
    before: int
    after: int
    answered: bool
    closed: int = 0

    @property
    def freed(self) -> int:
        return max(self.before - self.after, 0)


def collect() -> None:
    """Collect this process's garbage and give free pages back to the kernel."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # musl has none, and gives pages back by itself
        trim(0)


def offer(state_dir: Path) -> None:
    """Let this process be asked from now on; only from its main thread. Raises ``OSError``."""
    folder = state_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{_namespace()}-{os.getpid()}-{_start(os.getpid())}"
    signal.signal(SIGNAL, lambda *_: _answer(path))
    path.touch()
    deque(_others(folder), maxlen=0)


def others(state_dir: Path) -> list[int]:
    """Those that would be asked."""
    return [_parts(path)[1] for path in _others(state_dir / FOLDER)]


def ask(state_dir: Path, remaining: Callable[[], float]) -> list[Collected]:
    """Have every other process that offered it collect; all at once. Sizes are measured outside."""
    asked = [found for path in _others(state_dir / FOLDER) if (found := _ask(path)) is not None]
    ends = time.monotonic() + min(remaining(), ANSWER_SECONDS)
    while any(not each.has_answered() for each in asked) and time.monotonic() < ends:
        time.sleep(_PAUSE)
    return [each.collected() for each in asked]


def collect_here() -> Collected:
    process = psutil.Process()
    before, held = process.memory_info().rss, process.num_fds()
    collect()
    after = process.memory_info().rss
    closed = max(held - process.num_fds(), 0)
    return Collected(pid=process.pid, before=before, after=after, answered=True, closed=closed)


@dataclass(frozen=True, slots=True)
class _Asked:
    path: Path
    process: psutil.Process
    before: int
    held: int
    last_answer: int

    def has_answered(self) -> bool:
        try:
            return self.path.stat().st_mtime_ns != self.last_answer
        except OSError:
            return False

    def collected(self) -> Collected:
        try:
            after, held = self.process.memory_info().rss, self.process.num_fds()
        except psutil.Error:
            after, held = self.before, self.held
        return Collected(
            pid=self.process.pid,
            before=self.before,
            after=after,
            answered=self.has_answered(),
            closed=max(self.held - held, 0),
        )


def _ask(path: Path) -> _Asked | None:
    """Signal the process of a file; None where it cannot be asked."""
    pid = _parts(path)[1]
    try:
        # Opened first and looked at then, so that the signal can reach nobody else.
        handle = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        process = psutil.Process(pid)
        before, held = process.memory_info().rss, process.num_fds()
        asked = _Asked(path, process, before, held, path.stat().st_mtime_ns)
        if not _is_alive(path) or not _listens(pid):
            return None
        signal.pidfd_send_signal(handle, SIGNAL)
    except (OSError, psutil.Error):
        return None
    finally:
        os.close(handle)
    return asked


def _listens(pid: int) -> bool:
    """Whether the kernel says that the process catches our signal, which would end it else."""
    caught = next(
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("SigCgt:")
    )
    return bool(int(caught.split()[1], 16) >> (SIGNAL - 1) & 1)


def _answer(path: Path) -> None:
    collect()
    now = time.time_ns()
    with suppress(OSError):
        os.utime(path, ns=(now, now))


def _others(folder: Path) -> Iterator[Path]:
    """The files of other living processes of our process namespace; those of dead ones go."""
    own, here = os.getpid(), _namespace()
    try:
        listed = list(folder.glob("*-*-*"))
    except PermissionError:
        # Another user's state: their processes are not ours to ask either.
        return
    for path in listed:
        if not _NAME.fullmatch(path.name):
            # Another release's; it is not understood, and nobody is asked by it.
            path.unlink(missing_ok=True)
            continue
        namespace, pid, _ = _parts(path)
        if namespace != here or pid == own:
            continue
        if _is_alive(path):
            yield path
        else:
            path.unlink(missing_ok=True)


def _is_alive(path: Path) -> bool:
    _, pid, start = _parts(path)
    return _start(pid) == start


def _start(pid: int) -> int | None:
    """In clock ticks since boot, so that setting the clock buries nobody; None where it is dead."""
    found = identity(pid)
    return int(found.split()[1]) if found else None


def _parts(path: Path) -> tuple[int, int, int]:
    namespace, pid, start = path.name.split("-")
    return int(namespace), int(pid), int(start)


def _namespace() -> int:
    """Containers that share the state directory have process ids of their own."""
    return Path("/proc/self/ns/pid").stat().st_ino

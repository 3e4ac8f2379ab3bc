"""Having the other worker processes of this host collect their garbage, without a broker.

A process that can be asked says so by an empty file in the state directory, named by its process id
and the time of its start. It is asked by a signal, and answers by touching its file, which works on
a full disk too. A process that never said so is never signalled.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

SIGNAL = signal.SIGUSR2
FOLDER = "processes"

ANSWER_SECONDS = 2.0
"""How long a process is waited for; one that sits in a long call into C answers later."""

_PAUSE = 0.005
_SAME_BIRTH = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What one process gave back, in bytes of resident memory; ``answered`` in time or not."""

    pid: int
    before: int
    after: int
    answered: bool

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
    process = psutil.Process()
    folder = state_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{_namespace()}-{process.pid}-{process.create_time():.2f}"
    signal.signal(SIGNAL, lambda *_: _answer(path))
    path.touch()
    deque(_others(folder), maxlen=0)


def ask(state_dir: Path, remaining: Callable[[], float]) -> list[Collected]:
    """Have every other process that offered it collect; all at once. Sizes are measured outside."""
    asked = [found for path in _others(state_dir / FOLDER) if (found := _ask(path)) is not None]
    ends = time.monotonic() + min(remaining(), ANSWER_SECONDS)
    while any(not each.has_answered() for each in asked) and time.monotonic() < ends:
        time.sleep(_PAUSE)
    return [each.collected() for each in asked]


def collect_here() -> Collected:
    process = psutil.Process()
    before = process.memory_info().rss
    collect()
    after = process.memory_info().rss
    return Collected(pid=process.pid, before=before, after=after, answered=True)


@dataclass(frozen=True, slots=True)
class _Asked:
    path: Path
    process: psutil.Process
    before: int
    last_answer: int

    def has_answered(self) -> bool:
        try:
            return self.path.stat().st_mtime_ns != self.last_answer
        except OSError:
            return False

    def collected(self) -> Collected:
        try:
            after = self.process.memory_info().rss
        except psutil.Error:
            after = self.before
        return Collected(
            pid=self.process.pid, before=self.before, after=after, answered=self.has_answered()
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
        asked = _Asked(path, process, process.memory_info().rss, path.stat().st_mtime_ns)
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
    for path in folder.glob("*-*-*"):
        namespace, pid, _ = _parts(path)
        if namespace != here or pid == own:
            continue
        if _is_alive(path):
            yield path
        else:
            path.unlink(missing_ok=True)


def _is_alive(path: Path) -> bool:
    _, pid, born = _parts(path)
    try:
        return abs(psutil.Process(pid).create_time() - born) < _SAME_BIRTH
    except psutil.Error:
        return False


def _parts(path: Path) -> tuple[int, int, float]:
    namespace, pid, born = path.name.split("-")
    return int(namespace), int(pid), float(born)


def _namespace() -> int:
    """Containers that share the state directory have process ids of their own."""
    return Path("/proc/self/ns/pid").stat().st_ino

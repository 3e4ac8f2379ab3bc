"""Keeps programs running: starts them, starts them again, ends what is deaf, and stops them all.

It knows nothing of what they do. Each is a process group of its own that ends with the supervisor,
even with one that was killed.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Protocol

import structlog

from recovery import tether
from recovery.errors import SetupError
from recovery.systemd import ServiceManager

LIFELINE = "RECOVERY_LIFELINE_FD"
"""Names to a watched program the descriptor on which it reports to its watch."""

SETTLED_SECONDS = 60.0
"""Who has lived for so long begins the back-off anew."""

DEAF_GRACE_SECONDS = 5.0
HURRIED_SECONDS = 1.0
FOUNDATION_GRACE_SECONDS = 15.0
FOUNDATION_START_SECONDS = 10.0

_LONGEST_BACK_OFF = 30.0
_ROUND_SECONDS = 0.25

log = structlog.get_logger()


class Watch(Protocol):
    """Judges from outside whether a running program still does its work."""

    def lifeline(self) -> AbstractContextManager[int]:
        """The descriptor for a process that starts now; what was known of its forerunner ends."""
        ...

    def why_deaf(self) -> str | None:
        """Why the process has to be replaced; None while it does its work. Never waits."""
        ...

    def close(self) -> None:
        """The program will not be started again. May be called twice."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A command to keep running.

    ``is_foundation``: the others need it, so it starts before them and stops after them;
    ``is_up`` says when they may start. ``log``: where its output goes, ours without it.
    ``inherits``: descriptors that it keeps open for as long as it lives.
    """

    name: str
    command: tuple[str, ...]
    watch: Watch | None = None
    is_foundation: bool = False
    is_up: Callable[[], bool] | None = None
    log: Path | None = None
    inherits: tuple[int, ...] = ()


def back_off_seconds(failures: int) -> float:
    """How long to wait after so many lives that ended early: 1, 2, 4 … 30 s."""
    return min(2.0 ** min(failures, 5), _LONGEST_BACK_OFF)


@dataclass(slots=True, kw_only=True)
class _Child:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    due: float = 0.0
    failures: int = 0
    kill_at: float | None = None
    was_up: bool = False


@dataclass(slots=True, kw_only=True)
class Supervisor:
    """``grace_seconds``: what a stopping program may take to finish its work.

    ``deaf_grace_seconds``: the same for one that is replaced because it no longer does any.
    """

    programs: Iterable[Program]
    grace_seconds: float
    deaf_grace_seconds: float = DEAF_GRACE_SECONDS
    manager: ServiceManager = field(default_factory=ServiceManager)
    _children: list[_Child] = field(init=False)
    _requests: int = field(default=0, init=False)
    _told_ready: bool = field(default=False, init=False)
    _told_stopping: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._children = [_Child(program=program) for program in self.programs]

    def run(self) -> None:
        """Until SIGTERM or SIGINT and all have ended; a second signal shortens the wait.

        To be called in the main thread, because a program ends with the thread that started it.
        Raises ``SetupError`` where a foundation ends before it was ever up.
        """
        with _woken_by(self._on_signal) as wait:
            try:
                while not self._is_over():
                    self._round()
                    wait(_ROUND_SECONDS)
            finally:
                self._kill_all()

    @property
    def _is_stopping(self) -> bool:
        return self._requests > 0

    def _is_over(self) -> bool:
        return self._is_stopping and not any(child.process for child in self._children)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._requests += 1

    def _round(self) -> None:
        for child in self._children:
            self._attend(child)
        _reap_strangers({child.process.pid for child in self._children if child.process})
        if not self._told_ready and all(child.process for child in self._children):
            self._told_ready = True
            self.manager.tell("READY=1")
        if not self._told_stopping and self._is_stopping:
            self._told_stopping = True
            longest = self.grace_seconds + FOUNDATION_GRACE_SECONDS + HURRIED_SECONDS
            self.manager.tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={longest * 1e6:.0f}")
        self.manager.beat()

    def _attend(self, child: _Child) -> None:
        now = time.monotonic()
        if child.process is None:
            if not self._is_stopping and now >= child.due and self._may_start(child):
                self._start(child)
        elif _has_exited(child.process):
            self._bury(child, child.process)
        elif child.kill_at is not None:
            if self._requests > 1:
                child.kill_at = min(child.kill_at, now + HURRIED_SECONDS)
            if now >= child.kill_at:
                _kill_group(child.process)
        elif self._is_stopping:
            self._stop(child)
        elif child.program.watch and (why := child.program.watch.why_deaf()):
            log.error("is deaf, replaced", program=child.program.name, why=why)
            _terminate(child, self.deaf_grace_seconds)

    def _may_start(self, child: _Child) -> bool:
        return child.program.is_foundation or all(
            _is_up(other) for other in self._children if other.program.is_foundation
        )

    def _start(self, child: _Child) -> None:
        program = child.program
        environ = dict(os.environ)
        with ExitStack() as stack:
            inherited = list(program.inherits)
            if program.watch is not None:
                lifeline = stack.enter_context(program.watch.lifeline())
                inherited.append(lifeline)
                environ[LIFELINE] = str(lifeline)
            sink = stack.enter_context(program.log.open("ab")) if program.log else None
            child.process = subprocess.Popen(
                [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *program.command],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                pass_fds=inherited,
                start_new_session=True,
            )
        child.began, child.kill_at = time.monotonic(), None
        log.info("started", program=program.name, pid=child.process.pid)

    def _bury(self, child: _Child, process: subprocess.Popen[bytes]) -> None:
        # The dead leader still holds its number here, so the group cannot be somebody else's.
        _kill_group(process)
        process.wait()
        child.process, child.kill_at = None, None
        name, status = child.program.name, _status(process.returncode)
        if self._is_stopping:
            log.info("stopped", program=name, status=status)
            if child.program.watch is not None:
                child.program.watch.close()
            return
        if child.program.is_foundation and child.program.is_up and not child.was_up:
            where = f"; see {child.program.log}" if child.program.log else ""
            raise SetupError(f"{name} did not start: {status}{where}")
        lived = time.monotonic() - child.began
        child.failures = 0 if lived >= SETTLED_SECONDS else child.failures
        pause = back_off_seconds(child.failures)
        child.failures += 1
        child.due = time.monotonic() + pause
        log.warning("ended, starts again", program=name, status=status, in_seconds=pause)

    def _stop(self, child: _Child) -> None:
        if not child.program.is_foundation:
            _terminate(child, self.grace_seconds)
        elif not any(o.process for o in self._children if not o.program.is_foundation):
            _terminate(child, FOUNDATION_GRACE_SECONDS)

    def _kill_all(self) -> None:
        for child in self._children:
            if child.process is not None:
                _kill_group(child.process)
                child.process.wait()
            if child.program.watch is not None:
                child.program.watch.close()


def _is_up(child: _Child) -> bool:
    """True also for one that lives and takes long: the others wait for it by themselves."""
    if not child.was_up and child.process is not None:
        late = time.monotonic() - child.began > FOUNDATION_START_SECONDS
        child.was_up = late or child.program.is_up is None or child.program.is_up()
    return child.was_up


def _terminate(child: _Child, grace_seconds: float) -> None:
    """Ask the leader alone: it knows how to end the rest of its group."""
    if child.process is not None:
        child.process.terminate()
        child.kill_at = time.monotonic() + grace_seconds


def _has_exited(process: subprocess.Popen[bytes]) -> bool:
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process.pid, flags) is not None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _reap_strangers(ours: set[int]) -> None:
    """As process 1 of a container we inherit every orphan."""
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    with suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, flags)) is not None and ended.si_pid not in ours:
            os.waitpid(ended.si_pid, 0)


def _status(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit {code}"


@contextmanager
def _woken_by(
    handler: Callable[[int, FrameType | None], None],
) -> Iterator[Callable[[float], None]]:
    """Handle the signals, and yield a wait that each of them cuts short."""
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
        handlers: Mapping[int, object] = {n: signal.signal(n, handler) for n in numbers}

        def wait(seconds: float) -> None:
            select.select([reader], [], [], seconds)
            with suppress(BlockingIOError):
                reader.recv(4096)

        try:
            yield wait
        finally:
            for number, held in handlers.items():
                signal.signal(number, held)  # type: ignore[arg-type]
            signal.set_wakeup_fd(before)

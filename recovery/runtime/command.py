"""A process of our own in the background, or commands that start and stop one."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

from recovery.deadline import Deadline
from recovery.errors import RuntimeUnavailable, WontStart, WontStop
from recovery.places import state_dir
from recovery.runtime import daemonize, programs
from recovery.runtime.holder import holder_of, local_port
from recovery.runtime.process import KILL_SECONDS, ProcessState, Remaining, await_end, born
from recovery.runtime.settings import Arguments, CommandRuntime

CANNOT_RUN = 126
"""From here on an exit code tells of the command itself, not of what it was asked."""


def pid_file(runtime: CommandRuntime) -> Path:
    """Where the process that a runtime puts into the background is noted."""
    return state_dir() / "run" / f"{runtime.name}.pid"


class Command:
    """See ``recovery.runtime.Process``."""

    def __init__(
        self, runtime: CommandRuntime, remaining: Remaining, url: str | None = None
    ) -> None:
        self._runtime = runtime
        self._remaining = remaining
        self._port = local_port(url) if url else None

    @property
    def pid_file(self) -> Path:
        return pid_file(self._runtime)

    def inspect(self) -> ProcessState:
        if self._runtime.status is not None:
            return self._asked(self._runtime.status)
        program = self._runtime.start[0]
        pid = daemonize.noted(self.pid_file) or self._started_by_another()
        if not self._has_program():
            # What runs cannot be started again, so whoever asks must know before it is stopped.
            return ProcessState(
                exists=False, running=pid is not None, detail=f"no program {program}"
            )
        if pid is None:
            return ProcessState(exists=True, detail="not running")
        return ProcessState(
            exists=True,
            running=True,
            id=daemonize.identity(pid),
            pid=pid,
            started_at=born(pid),
            detail="running",
        )

    def stop(self, grace: float, *, kill: bool = True) -> None:
        found = self.inspect()
        if not found.running:
            return
        if found.pid is not None and self._runtime.status is None:
            self._make_folder()
            daemonize.take_over(self.pid_file, found.pid)
        patience = Deadline(min(grace, self._remaining()))
        problem = self._ask_to_end(patience)
        if self._ended(0 if problem else patience.left()):
            return
        if self._runtime.start_returns or not kill:
            raise WontStop(problem or f"{self._runtime.name} runs on after it was told to stop")
        _signal(self.pid_file, signal.SIGKILL)
        if not self._ended(KILL_SECONDS):
            raise WontStop(f"{self._runtime.name} runs on after KILL")

    def start(self) -> None:
        if self._runtime.start_returns:
            answer = programs.run(self._runtime.start, self._remaining)
            if not answer.is_good:
                # What it wrote may hold anything; its code tells enough.
                raise WontStart(f"the start command ended with exit code {answer.code}")
            return
        self._make_folder()
        places = (str(self.pid_file), self._runtime.log_file, self._runtime.folder)
        launcher = (sys.executable, "-I", daemonize.__file__, *places)
        answer = programs.run((*launcher, *self._runtime.start), self._remaining, listen=True)
        if not answer.is_good:
            raise WontStart(f"{self._runtime.name} cannot be started: {answer.complaint}")

    def restart(self, grace: float) -> None:
        self.stop(grace)
        self.start()

    def _started_by_another(self) -> int | None:
        """By a person or at boot, with no pid file of ours: it has the target's port."""
        return None if self._port is None else holder_of(self._port, self._runtime.start[0])

    def _has_program(self) -> bool:
        program = self._runtime.start[0]
        if "/" not in program:
            return shutil.which(program) is not None
        path = Path(self._runtime.folder) / program
        return path.is_file() and os.access(path, os.X_OK)

    def _make_folder(self) -> None:
        try:
            self.pid_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise RuntimeUnavailable(f"no pid file can be written: {error}") from error

    def _ended(self, seconds: float) -> bool:
        return await_end(self._goes_on, seconds, self._remaining)

    def _goes_on(self) -> bool:
        """The one that was told to stop, and not whoever else holds its port by now."""
        if self._runtime.status is not None:
            return self._asked(self._runtime.status).running
        return daemonize.noted(self.pid_file) is not None

    def _asked(self, status: Arguments) -> ProcessState:
        answer = programs.run(status, self._remaining)
        if answer.code >= CANNOT_RUN:
            raise RuntimeUnavailable(f"{status[0]} cannot tell: exit code {answer.code}")
        detail = "running" if answer.is_good else f"status exits with {answer.code}"
        return ProcessState(exists=True, running=answer.is_good, detail=detail)

    def _ask_to_end(self, patience: Deadline) -> str | None:
        """TERM or the stop command; why that was no use, if it was not."""
        if self._runtime.stop is None:
            _signal(self.pid_file, signal.SIGTERM)
            return None
        try:
            answer = programs.run(self._runtime.stop, patience.remaining)
        except RuntimeUnavailable as error:
            return error.message
        return None if answer.is_good else f"the stop command ended with exit code {answer.code}"


def _signal(pid_file: Path, number: signal.Signals) -> None:
    """Signal the noted process and never one that has its pid by now; KILL takes the whole group
    that it leads.

    No error where it is gone.
    """
    pid = daemonize.noted(pid_file)
    if pid is None:
        return
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # Looked at again with the process held: a pid file is about what it was.
        if daemonize.noted(pid_file) == pid:
            _deliver(handle, pid, number)
    finally:
        os.close(handle)


def _deliver(handle: int, pid: int, number: signal.Signals) -> None:
    try:
        if number is signal.SIGKILL and os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return

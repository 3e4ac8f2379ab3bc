"""A program of its own: put a command into the background, with a pid file that cannot lie.

    python daemonize.py PID_FILE LOG_FILE FOLDER COMMAND [ARGUMENT ...]

The process notes who it is before it becomes the command, so whatever runs is noted, however the
caller ends; a lock keeps two of them apart. Exits with 0 where the command runs, also where it ran
before, and with 1 and a sentence where it cannot be run. Needs the standard library alone, so that
it works wherever the caller's Python does.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn


def identity(pid: int) -> str | None:
    """What no other process ever has: pid, start in clock ticks, boot. None where it is dead."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name stands in parentheses and may hold anything, spaces included.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{pid} {fields[19]} {boot}"


def noted(pid_file: Path) -> int | None:
    """The pid of the noted process if that very one is alive."""
    try:
        line = pid_file.read_text().strip()
    except FileNotFoundError:
        return None
    pid = line.partition(" ")[0]
    return int(pid) if pid.isdigit() and identity(int(pid)) == line else None


def take_over(pid_file: Path, pid: int) -> None:
    """Note a process that somebody else started, unless the noted one lives."""
    lock = _lock(pid_file)
    try:
        line = identity(pid)
        if line is not None and noted(pid_file) is None:
            _write(pid_file, line)
    finally:
        os.close(lock)


def main(pid_file: Path, log_file: str, folder: str, command: list[str]) -> int:
    listening, telling = os.pipe()
    if os.fork() == 0:
        os.close(listening)
        _become(pid_file, log_file, folder, command, telling)
    os.close(telling)
    # It closes when the command has taken the process over.
    with os.fdopen(listening) as source:
        problem = source.read()
    sys.stderr.write(problem)
    return 1 if problem else 0


def _become(
    pid_file: Path, log_file: str, folder: str, command: list[str], telling: int
) -> NoReturn:
    try:
        os.setsid()
        _lock(pid_file)
        if noted(pid_file) is not None:
            os._exit(0)
        _write(pid_file, identity(os.getpid()) or "")
        os.chdir(folder)
        _redirect(log_file)
        _forget_signals()
        os.execvp(command[0], command)  # noqa: S606 - an argument list from the host's own policy
    except OSError as error:
        os.write(telling, f"{error.filename or command[0]}: {error.strerror}".encode())
    finally:
        # A pid file that is left names a process that is gone, and nobody takes it for another.
        os._exit(1)


def _lock(pid_file: Path) -> int:
    lock = os.open(pid_file.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _write(path: Path, line: str) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(line)
    draft.replace(path)


def _redirect(log_file: str) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)


def _forget_signals() -> None:
    """A worker ignores and blocks some, and that would be inherited."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]))

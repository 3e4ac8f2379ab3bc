"""The processes that the policy names: which they are now, and what each holds."""

from __future__ import annotations

import re
import resource
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import psutil

from recovery import heard
from recovery.components.system.named import NamedProcess
from recovery.runtime import daemonize
from recovery.runtime.command import pid_file

GONE = (psutil.NoSuchProcess, psutil.ZombieProcess)
NOT_RUNNING = frozenset({psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP, psutil.STATUS_DEAD})

Life: TypeAlias = str
"""Process id, start and boot: no two processes ever have them all, whatever the clock does."""

_KINDS = (("socket:", "sockets"), ("pipe:", "pipes"), ("anon_inode:", "events"), ("/", "files"))


def find(named: Iterable[NamedProcess]) -> list[list[psutil.Process]]:
    """For each of them the processes that it means now; none where it does not run."""
    wanted = list(named)
    listed = _listed() if any(each.name or each.cmdline for each in wanted) else []
    return [_found(each, listed) for each in wanted]


def _found(
    named: NamedProcess, listed: list[tuple[psutil.Process, str, str]]
) -> list[psutil.Process]:
    if named.name or named.cmdline:
        return _matching(named, listed)
    if named.pidfile:
        return _by_pidfile(named.pidfile)
    if named.worker:
        return _living(pid for pid, _ in heard.living(named.worker))
    command = named.own_command
    pid = daemonize.noted(pid_file(command)) if command else None
    return _living([] if pid is None else [pid])


def lives(named: NamedProcess) -> frozenset[Life]:
    """Those that the policy means by a process now."""
    (running,) = find([named])
    found = (daemonize.identity(process.pid) for process in running)
    return frozenset(life for life in found if life is not None)


def pid_of(life: Life) -> int:
    return int(life.partition(" ")[0])


def are_of(lives: Iterable[Life], pid: int) -> bool:
    """Whether one of them is that process or has come from it."""
    for life in lives:
        try:
            process = psutil.Process(pid_of(life))
            if pid in {process.pid, *(parent.pid for parent in process.parents())}:
                return True
        except psutil.Error:
            continue
    return False


def carry_us(pids: Iterable[int]) -> bool:
    """Whether one of them is this very process or one that it came from."""
    this = psutil.Process()
    return not {own.pid for own in (this, *this.parents())}.isdisjoint(pids)


def shown(lives: Iterable[Life]) -> str:
    return ", ".join(str(pid) for pid in sorted(map(pid_of, lives)))


def _listed() -> list[tuple[psutil.Process, str, str]]:
    return [
        (process, process.info["name"] or "", " ".join(process.info["cmdline"] or ()))
        for process in psutil.process_iter(["name", "cmdline", "status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def _matching(
    named: NamedProcess, listed: list[tuple[psutil.Process, str, str]]
) -> list[psutil.Process]:
    if named.cmdline is not None:
        pattern = re.compile(named.cmdline, re.DOTALL)
        return [process for process, _, line in listed if line and pattern.search(line)]
    return [process for process, name, _ in listed if name == named.name]


def _by_pidfile(pidfile: Path) -> list[psutil.Process]:
    try:
        return _living([int(pidfile.read_text().split()[0])])
    except (OSError, ValueError, IndexError):
        return []


def _living(pids: Iterable[int]) -> list[psutil.Process]:
    found = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ValueError, OverflowError, *GONE):
            continue
    return found


def is_stopped(process: psutil.Process) -> bool:
    """Whether it stands still: stopped by a signal or by a debugger."""
    try:
        return process.status() in NOT_RUNNING
    except GONE:
        return True


def open_files(process: psutil.Process) -> tuple[int, int] | None:
    """Descriptors and the soft limit; None where we may not know or it is gone."""
    try:
        return process.num_fds(), process.rlimit(resource.RLIMIT_NOFILE)[0]
    except (psutil.AccessDenied, *GONE):
        return None


def kinds(process: psutil.Process) -> dict[str, int]:
    """How many descriptors of each kind: sockets, pipes, events, files and other."""
    found: Counter[str] = Counter()
    try:
        for entry in Path(f"/proc/{process.pid}/fd").iterdir():
            found[_kind(entry)] += 1
    except OSError:
        return dict(found)
    return dict(found)


def _kind(entry: Path) -> str:
    try:
        leads_to = str(entry.readlink())
    except OSError:
        return "other"
    return next((kind for start, kind in _KINDS if leads_to.startswith(start)), "other")


def holders(count: int) -> list[tuple[str, int, int]]:
    """Name, process id and resident bytes of those that hold most memory; names, no arguments."""
    found = [
        (process.info["name"] or "?", process.pid, process.info["memory_info"].rss)
        for process in psutil.process_iter(["name", "memory_info"])
        if process.info["memory_info"] is not None
    ]
    return sorted(found, key=lambda entry: -entry[2])[:count]


def most_open(count: int) -> list[tuple[str, int, int, int]]:
    """Name, process id, descriptors and soft limit of those nearest to their limit."""
    found = []
    for process in psutil.process_iter(["name"]):
        held = open_files(process)
        if held is not None and held[1] > 0:
            found.append((process.info["name"] or "?", process.pid, *held))
    return sorted(found, key=lambda entry: -entry[2] / entry[3])[:count]

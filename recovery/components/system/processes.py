"""The processes that the policy names: which they are now, and what each holds."""

from __future__ import annotations

import re
import resource
import socket
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import psutil

from recovery.components.system.target import NamedProcess

GONE = (psutil.NoSuchProcess, psutil.ZombieProcess)
NOT_RUNNING = frozenset({psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP, psutil.STATUS_DEAD})

_KINDS = (("socket:", "sockets"), ("pipe:", "pipes"), ("anon_inode:", "events"), ("/", "files"))


def find(named: Iterable[NamedProcess]) -> list[list[psutil.Process]]:
    """For each of them the processes that it means now; none where it does not run."""
    wanted = list(named)
    listed = _listed() if any(process.pidfile is None for process in wanted) else []
    return [
        _by_pidfile(process.pidfile) if process.pidfile else _matching(process, listed)
        for process in wanted
    ]


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
        process = psutil.Process(int(pidfile.read_text().split()[0]))
        return [] if process.status() == psutil.STATUS_ZOMBIE else [process]
    except (OSError, ValueError, IndexError, *GONE):
        return []


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


def accepts(port: int, timeout: float) -> bool:
    """Whether somebody accepts connections on this port of the loopback address."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout).close()
    except OSError:
        return False
    return True


def silence(heartbeat_file: Path) -> float | None:
    """Seconds since the file was touched; None where there is none."""
    try:
        return max(time.time() - heartbeat_file.stat().st_mtime, 0.0)
    except OSError:
        return None


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

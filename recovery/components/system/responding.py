"""Whether a process responds, asked in the ways that the policy names. Changes nothing."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from recovery import heard
from recovery.components.system import processes
from recovery.components.system.named import NamedProcess
from recovery.deadline import Deadline

LOOPBACK = "127.0.0.1"

_LONGEST_STATUS = 4096
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")

Complaint = tuple[str, str]
"""A failure type, and a sentence about it."""


def complaints(
    key: str, named: NamedProcess, running: Sequence[psutil.Process], left: Callable[[], float]
) -> Iterator[Complaint]:
    """What speaks against its responding; ``left`` says how long a question may take."""
    if not running:
        yield "process_unresponsive", f"{key} does not run"
    for process in running:
        if processes.is_stopped(process):
            yield "process_unresponsive", f"{key} ({process.pid}) stands still"
    yield from _silent(key, named, left)
    signs = [path for _, path in heard.living(named.worker)] if named.worker else []
    for path in (*signs, *([named.heartbeat_file] if named.heartbeat_file else ())):
        silent = silence(path)
        if silent is None or silent > named.heartbeat_seconds:
            shown = "never" if silent is None else f"{silent:.0f} s ago"
            yield "worker_hung", f"{key} gave its last sign of life {shown}"


def _silent(key: str, named: NamedProcess, left: Callable[[], float]) -> Iterator[Complaint]:
    if named.port and not accepts((LOOPBACK, named.port), left()):
        yield "process_unresponsive", f"{key} accepts no connection on port {named.port}"
    if named.socket and not accepts(named.socket, left()):
        yield "process_unresponsive", f"{key} accepts no connection on {named.socket}"
    if named.url and (problem := problem_of(named.url, left())):
        yield "process_unresponsive", f"{key} {problem}"


def accepts(address: tuple[str, int] | Path, timeout: float) -> bool:
    """Whether somebody accepts connections there. The kernel does so for a process that hangs."""
    try:
        _connected(address, timeout).close()
    except OSError:
        return False
    return True


def problem_of(url: str, timeout: float) -> str | None:
    """What is wrong with the answer to a GET, as the end of a sentence; None where nothing is.

    A refusal is an answer: whoever says 401 or 404 responds.
    """
    patience = Deadline(timeout)
    try:
        status = _status(url, patience)
    except OSError as error:
        return f"does not answer: {error.strerror or error}"
    if status is None:
        return "does not speak HTTP"
    return f"answers with {status}" if status >= 500 else None  # noqa: PLR2004 - HTTP's own


def silence(heartbeat_file: Path) -> float | None:
    """Seconds since the file was touched; None where there is none."""
    try:
        return max(time.time() - heartbeat_file.stat().st_mtime, 0.0)
    except OSError:
        return None


def _status(url: str, patience: Deadline) -> int | None:
    """The status of an answer's first line, however slowly that comes; raises ``OSError``."""
    parts = urlsplit(url)
    place = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
    asked = f"GET {place} HTTP/1.0\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
    said = b""
    with _connected((parts.hostname or LOOPBACK, parts.port or 80), patience.left()) as connection:
        connection.sendall(asked.encode("ascii"))
        while b"\n" not in said and len(said) < _LONGEST_STATUS:
            left = patience.left()
            if left <= 0:
                raise TimeoutError("timed out")
            connection.settimeout(left)
            more = connection.recv(1024)
            if not more:
                break
            said += more
    found = _STATUS.match(said)
    return int(found[1]) if found else None


def _connected(address: tuple[str, int] | Path, timeout: float) -> socket.socket:
    if isinstance(address, tuple):
        return socket.create_connection(address, timeout)
    made = socket.socket(socket.AF_UNIX)
    try:
        made.settimeout(timeout)
        made.connect(str(address))
    except BaseException:
        made.close()
        raise
    return made

"""Connections that the other end closed and the process forgot: ended from outside, by a copy.

The kernel hands out a copy of a process's descriptor, of which it then says itself in what state
its connection is and for how long it has been silent. What is ended is exactly what was looked at,
in whatever network the process lives. Its number in the process is the process's own: most programs
give it back as soon as they are told, and one that forgot it for good keeps it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from recovery.errors import TargetRefused

PIDFD_GETFD = 438
"""The system call's number, the same on all of Linux's architectures but one (Alpha)."""

CLOSE_WAIT = 8
_SILENCES = struct.Struct("@B43xI4xII")
"""Of ``struct tcp_info``: the state; milliseconds since it sent and received data, and heard."""


def end(pid: int, silent_seconds: float, tick: Callable[[], object]) -> int:
    """End the process's connections that wait to be closed and were silent for so long; how many.

    ``tick`` is called once a descriptor, and may raise. Raises ``TargetRefused`` where the kernel
    does not let us, ``ProcessLookupError`` where it is gone.
    """
    handle = os.pidfd_open(pid)
    ended = 0
    try:
        for number in _sockets(pid):
            tick()
            copy = _copied(handle, number)
            if copy is None:
                continue
            with copy:
                if _is_stuck(copy, silent_seconds):
                    copy.shutdown(socket.SHUT_RDWR)
                    ended += 1
    finally:
        os.close(handle)
    return ended


def _sockets(pid: int) -> list[int]:
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if str(entry.readlink()).startswith("socket:"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def _copied(handle: int, number: int) -> socket.socket | None:
    """None where the number is no socket any more."""
    libc = ctypes.CDLL(None, use_errno=True)
    copy = libc.syscall(PIDFD_GETFD, handle, number, 0)
    if copy < 0:
        error = ctypes.get_errno()
        if error == errno.EPERM:
            raise TargetRefused("the kernel does not let this user reach its connections")
        return None
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None


def _is_stuck(copy: socket.socket, silent_seconds: float) -> bool:
    """Half-closed is also a client that has asked and waits, so silence alone tells."""
    if copy.family not in {socket.AF_INET, socket.AF_INET6} or copy.type != socket.SOCK_STREAM:
        return False
    try:
        info = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SILENCES.size)
        state, *silences = _SILENCES.unpack(info)
    except (OSError, struct.error):
        return False
    return bool(state == CLOSE_WAIT and min(silences) >= silent_seconds * 1000)

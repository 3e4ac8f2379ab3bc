"""One instance of a thing on one state directory: a lock that ends with its last holder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recovery.errors import SetupError

REMAINS_SECONDS = 10.0
"""How long what a killed instance left may take to end."""

_POLL_SECONDS = 0.05


@contextmanager
def only_one(state_dir: Path, name: str) -> Iterator[int]:
    """Hold ``<state_dir>/<name>.lock``; raises ``SetupError`` where another instance does.

    Yields the descriptor. A child that inherits it holds the lock too, until it ends.
    """
    path = state_dir / f"{name}.lock"
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise SetupError(f"cannot use the state directory: {path}: {error.strerror}") from error
    try:
        _lock(descriptor, path, name)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, name: str) -> None:
    deadline = time.monotonic() + REMAINS_SECONDS
    while not _try_lock(descriptor):
        holder = os.pread(descriptor, 32, 0).decode(errors="replace")
        if _is_alive(holder):
            raise SetupError(
                f"recovery {name} already runs on {path.parent}: process {holder}",
                {"pid": int(holder), "state_dir": str(path.parent)},
            )
        if time.monotonic() > deadline:
            raise SetupError(
                f"{path} is still held by what an earlier instance left; see: fuser {path}",
                {"state_dir": str(path.parent)},
            )
        time.sleep(_POLL_SECONDS)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(pid: str) -> bool:
    """A holder that has locked and not yet written its id counts as dead, for moments."""
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

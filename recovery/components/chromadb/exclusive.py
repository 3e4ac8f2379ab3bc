"""One at a time on this host: whoever copies, replaces or rebuilds a Chroma directory.

The lease keeps two recoveries of a target apart; this also keeps a snapshot and a recovery apart,
and two targets that name one directory. It dies with its process. Beside the lock lies a note of a
server that was stopped, so that whoever comes after a killed one starts it again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import quote

from recovery.components.chromadb.server import ServerProcess
from recovery.components.chromadb.target import ChromaTarget
from recovery.deadline import Deadline
from recovery.errors import NotCopied, TargetBusy, WontStart
from recovery.places import state_dir
from recovery.runtime import Remaining

_PAUSE = 0.05


def alone_on_server(target: ChromaTarget, patience: float) -> AbstractContextManager[None]:
    """The same for a server's database that is reached by its API alone; on this host only."""
    return alone(_of_server(target), patience)


def home(target: ChromaTarget) -> str:
    """By what a server knows this host's lock: another text on each state directory.

    Call it with ``alone_on_server`` held. Raises ``NotCopied``.
    """
    lock = _open(_place(_of_server(target), "lock"))
    try:
        if not (known := os.pread(lock, 64, 0)):
            known = uuid.uuid4().hex.encode()
            os.pwrite(lock, known, 0)
            os.fsync(lock)
        return known.decode(errors="replace")
    finally:
        os.close(lock)


@contextmanager
def alone(path: Path, patience: float) -> Iterator[None]:
    """Hold the directory's lock. Raises ``TargetBusy`` where another has it for ``patience``."""
    lock = _open(_place(path, "lock"))
    try:
        within = Deadline(patience)
        while not _is_taken(lock):
            if within.left() <= 0:
                raise TargetBusy(f"another repair or snapshot of {path} is at work")
            time.sleep(_PAUSE)
        yield
    finally:
        os.close(lock)


def note_stopped(path: Path) -> None:
    """Say, before it is done, that the server is stopped and has to be started again."""
    place = _place(path, "stopped")
    os.close(_open(place))
    folder = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def is_noted_stopped(path: Path) -> bool:
    return _place(path, "stopped").exists()


def start_again(target: ChromaTarget, path: Path, remaining: Remaining) -> None:
    """Start a server that was stopped and noted, and forget the note when it answers.

    Call it with the lock held. Raises what ``ServerProcess.start`` raises.
    """
    if is_noted_stopped(path):
        server = ServerProcess(target, remaining)
        try:
            server.start()
        except WontStart:
            # It ran when it was told to start, and ended of what it had been told before.
            server.start()
        forget_stopped(path)


def forget_stopped(path: Path) -> None:
    """The server is not ours to start any more."""
    _place(path, "stopped").unlink(missing_ok=True)


def _of_server(target: ChromaTarget) -> Path:
    named = (target.server or "", target.tenant, target.database)
    return Path("/", *(quote(part, safe="") for part in named))


def _place(path: Path, kind: str) -> Path:
    digest = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:24]
    return state_dir() / "chromadb" / f"{digest}.{kind}"


def _open(place: Path) -> int:
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(place, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NotCopied(f"{place} cannot be written: {error.strerror}") from error


def _is_taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

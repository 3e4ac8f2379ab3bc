"""Running the children of a rebuild: what they say is passed on, and what ends them gets a name.

A child dies with its worker: it must not go on with files that somebody else takes up again.
"""

from __future__ import annotations

import fcntl
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from recovery import tether
from recovery.components.chromadb.child import bare_environment
from recovery.components.chromadb.rebuilding import orders
from recovery.components.chromadb.rebuilding.orders import (
    BuildOrder,
    EmbedOrder,
    SurveyOrder,
    TextsOrder,
)
from recovery.errors import (
    DeadlineExceeded,
    NothingKept,
    RemedyError,
    TargetRefused,
    TargetUnreachable,
)

PREFIX = ".recovery-rebuild-"
LONGEST_COMPLAINT = 300
_END = ""
_FULL = ("No space left", "disk is full", "database or disk is full", "(code: 13)")
_DENIED = ("Permission denied", "PermissionError", "readonly database", "unable to open database")

Order = SurveyOrder | BuildOrder | EmbedOrder | TextsOrder
Told = Callable[[str, int], None]
"""What is being done, and how many percent of it are."""


@contextmanager
def private_place(path: Path) -> Iterator[Path]:
    """An empty folder beside the indexes, for one rebuild; and what killed ones left is removed.

    Raises ``TargetRefused`` where nothing may be written there, ``NothingKept`` where there is no
    room.
    """
    sweep(path)
    try:
        place = Path(tempfile.mkdtemp(prefix=PREFIX, dir=path))
    except PermissionError as error:
        raise TargetRefused(f"{path} may not be written: {error.strerror}") from error
    except OSError as error:
        raise NothingKept(f"nothing can be written in {path}: {error}") from error
    held = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield place
    finally:
        os.close(held)
        shutil.rmtree(place, ignore_errors=True)


def sweep(path: Path) -> None:
    """Remove the folders of rebuilds that were killed: nobody holds their lock."""
    for place in path.glob(f"{PREFIX}*"):
        with suppress(OSError):
            held = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(place, ignore_errors=True)
            finally:
                os.close(held)


def run(
    module: str,
    order: Order,
    remaining: Callable[[], float],
    told: Told = lambda _, __: None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The verdict of a child. Raises ``RemedyError`` in the kind that its end was."""
    where = f"recovery.components.chromadb.rebuilding.{module}"
    command = [sys.executable, tether.__file__, str(os.getpid()), sys.executable, "-m", where]
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env={**bare_environment(), **(environment or {})},
            cwd="/",
        )
        lines: queue.Queue[str] = queue.Queue()
        said = json.dumps(asdict(order))
        reader = threading.Thread(target=_read, args=(process, said, lines), daemon=True)
        reader.start()
        try:
            last = _listen(lines, remaining, told)
            code = process.wait(max(remaining(), 1.0))
        except (DeadlineExceeded, subprocess.TimeoutExpired) as error:
            raise DeadlineExceeded(f"{module} was not done in time") from error
        finally:
            process.kill()
            process.wait()
            reader.join()
        return _judged(module, code, last, _tail(complaints))


def _listen(lines: queue.Queue[str], remaining: Callable[[], float], told: Told) -> dict[str, Any]:
    """The last thing it said; raises ``DeadlineExceeded``."""
    last: dict[str, Any] = {}
    while True:
        try:
            line = lines.get(timeout=min(remaining(), 1.0))
        except queue.Empty:
            continue
        if line == _END:
            return last
        last = json.loads(line)
        if "percent" in last:
            told(last["doing"], last["percent"])


def _read(process: subprocess.Popen[str], order: str, lines: queue.Queue[str]) -> None:
    with suppress(BrokenPipeError, ValueError, OSError):
        if process.stdin is not None:
            with process.stdin as sink:
                sink.write(order)
        if process.stdout is not None:
            with process.stdout as source:
                for line in source:
                    if line.startswith("{") and line.endswith("}\n"):
                        lines.put(line)
    lines.put(_END)


def _tail(complaints: IO[bytes]) -> str:
    size = complaints.seek(0, os.SEEK_END)
    complaints.seek(max(size - 64 * 1024, 0))
    return complaints.read().decode(errors="replace").strip()


def _judged(module: str, code: int, last: dict[str, Any], complaint: str) -> dict[str, Any]:
    verdict: dict[str, Any] | None = last.get("verdict")
    if code == 0 and verdict is not None:
        if orders.LOCKED in verdict:
            raise TargetUnreachable(f"the database is locked: {verdict[orders.LOCKED]}")
        return verdict
    said = complaint.splitlines()[-1][:LONGEST_COMPLAINT] if complaint else "no word"
    if any(word in complaint for word in _FULL):
        raise NothingKept(f"no room to build in: {said}")
    if any(word in complaint for word in _DENIED):
        raise TargetRefused(f"the files may not be used: {said}")
    if -code == signal.SIGALRM:
        raise DeadlineExceeded(f"{module} was not done in time")
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    raise RemedyError(f"{module} ended with {how}: {said}")


def deadline_of(remaining: Callable[[], float]) -> float:
    """The seconds that a child may take, leaving some to put in place what it made."""
    return max(remaining() - 1.0, 0.5)

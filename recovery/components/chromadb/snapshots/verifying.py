"""Having a child open a restored copy and read all of it, and what its answer or death means."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recovery.components.chromadb import child
from recovery.components.chromadb.findings import Budget
from recovery.components.chromadb.snapshots.manifest import StoredCollection
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import NotCopied, SnapshotDamaged
from recovery.runtime import Remaining

COMMAND = (sys.executable, "-m", "recovery.components.chromadb.snapshots.verification")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What Chroma itself read from a copy, and how many of its vectors found themselves."""

    chroma: str
    collections: tuple[StoredCollection, ...]
    queried: int


def judge(copy: Path, target: ChromaTarget, remaining: Remaining) -> bool:
    """Look at the files of a copy, every byte of which is then known by its digest to a rollback.

    False where not all of it could be looked at. Raises ``SnapshotDamaged``.
    """
    # What the policy expects is said better by whoever knows how many records there are.
    whatever = target.model_copy(update={"collections": {}})
    found = child.inspect(whatever, copy, Budget(remaining()), opens=False)
    if found.finding is not None:
        raise SnapshotDamaged(f"the copy is damaged: {found.finding.summary}")
    figures = found.figures
    is_whole = figures.get("integrity") == "checked" and figures.get("depth") == "index"
    return is_whole and "index_format" not in figures


def verify(
    copy: Path, target: ChromaTarget, remaining: Remaining, command: Sequence[str] = COMMAND
) -> Verified:
    """Open a copy, which changes it; it must be thrown away.

    Raises ``SnapshotDamaged`` where it does not read or lacks what the target must hold, and
    ``NotCopied`` where nothing can open it.
    """
    if find_spec("chromadb") is None:
        raise NotCopied("a snapshot counts once Chroma has opened it: the package is not installed")
    seconds = remaining()
    order = {"path": str(copy), "timeout": max(seconds - 1.0, 1.0)}
    found = ask(command, order, copy, seconds)["verified"]
    if "problem" in found:
        raise SnapshotDamaged(f"the copy is damaged: {found['problem'][:200]}")
    collections = tuple(StoredCollection(**one) for one in found["collections"])
    refuse_too_little(collections, target)
    from importlib.metadata import version

    return Verified(chroma=version("chromadb"), collections=collections, queried=found["queried"])


def ask(
    command: Sequence[str], order: dict[str, Any], folder: Path, seconds: float
) -> dict[str, Any]:
    """What a child that reads or fills ``folder`` says last.

    Raises ``NotCopied`` where it has no time or is killed, ``SnapshotDamaged`` where it dies of
    what it reads.
    """
    try:
        done = subprocess.run(
            command,
            input=json.dumps(order),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env=child.bare_environment() | child.ONE_THREAD,
            cwd=folder,
        )
    except subprocess.TimeoutExpired as error:
        raise NotCopied(f"the copy could not be read within {seconds:.0f} s") from error
    last = child.last_said(done.stdout)
    if done.returncode == 0 and last and "reading" not in last:
        return last
    raise _died(last, done.returncode, done.stderr)


def _died(last: dict[str, Any], code: int, complaint: str) -> SnapshotDamaged | NotCopied:
    lines = complaint.strip().splitlines()
    how = signal.Signals(-code).name if code < 0 else (lines[-1][:200] if lines else f"exit {code}")
    if -code in (signal.SIGKILL, signal.SIGTERM, signal.SIGALRM):
        return NotCopied(f"whoever read the copy was ended by {how}")
    where = last.get("reading", "the copy")
    return SnapshotDamaged(f"the copy is damaged: reading {where} ended the process: {how}")


def refuse_too_little(found: Sequence[StoredCollection], target: ChromaTarget) -> None:
    """A directory that was emptied opens well, and must not push out what is worth keeping.

    Raises ``SnapshotDamaged``.
    """
    if not found:
        raise SnapshotDamaged("the copy holds no collection")
    own = {
        one.name: one.records
        for one in found
        if (one.tenant, one.database) == (target.tenant, target.database)
    }
    for name, least in sorted(target.collections.items()):
        if own.get(name, -1) < least:
            held = f"{own[name]} records" if name in own else "nothing"
            raise SnapshotDamaged(f"the copy holds {held} of {name}, which must have {least}")

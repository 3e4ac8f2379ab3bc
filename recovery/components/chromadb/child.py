"""Running the inspection of a directory as a child, and what it means when the child dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recovery.components.chromadb import view
from recovery.components.chromadb.findings import Budget, Examined, Finding
from recovery.components.chromadb.inspection import Order
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import RemedyError

COMMAND = (sys.executable, "-m", "recovery.components.chromadb.inspection")
ROOT = str(Path(__file__).resolve().parents[3])
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""A look needs no thread a core, and making them takes longer than what they would do."""
AMPLE_SECONDS = 10.0
"""Opening a copy that takes longer is a finding; a shorter time only ended a deeper look."""


def inspect(
    target: ChromaTarget,
    path: Path,
    budget: Budget,
    *,
    judges_files: bool = True,
    opens: bool = True,
) -> Examined:
    """Have a child look at a directory. Raises ``RemedyError`` where the child cannot do its work.

    ``judges_files`` false: show Chroma a copy whatever its index files look like. ``opens`` false:
    judge the files alone, which costs no import of Chroma.
    """
    with beginning(target) as look:
        return look(path, budget, judges_files=judges_files, opens=opens)


@contextmanager
def beginning(target: ChromaTarget) -> Iterator[Look]:
    """A child that is told later what to look at: what it imports is then imported already."""
    with view.private_folder() as private, _started(COMMAND, private) as process:
        yield Look(target, private, process)


@dataclass(frozen=True, slots=True)
class Look:
    """One look, for which a child waits. Raises ``RemedyError`` as ``inspect`` does."""

    _target: ChromaTarget
    _private: Path
    _process: subprocess.Popen[str]

    def __call__(
        self, path: Path, budget: Budget, *, judges_files: bool = True, opens: bool = True
    ) -> Examined:
        order = Order(
            path=str(path),
            view=str(self._private),
            # The child's own clock starts after its interpreter did.
            timeout=max(budget.left() * 0.95 - 0.1, 0.1),
            tenant=self._target.tenant,
            database=self._target.database,
            latency_ms=self._target.thresholds.latency_ms,
            collections=self._target.collections,
            judges_files=judges_files,
            opens=opens,
        )
        return _told(self._process, order, budget)


def run(command: Sequence[str], order: Order, budget: Budget) -> Examined:
    """Raises ``RemedyError`` where the child fails in a way that says nothing of the target."""
    with _started(command, Path(order.view)) as process:
        return _told(process, order, budget)


@contextmanager
def _started(command: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """It ends with its context at the latest, and by itself where its parent dies."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=bare_environment() | ONE_THREAD,
        cwd=folder,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def _told(process: subprocess.Popen[str], order: Order, budget: Budget) -> Examined:
    try:
        said, complaint = process.communicate(json.dumps(asdict(order)), timeout=budget.left())
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
        return _overdue(last_said(said), budget.seconds)
    last = last_said(said)
    if process.returncode == 0 and "verdict" in last:
        return Examined.from_dict(last["verdict"])
    if _has_moved(Path(order.path), last):
        return Examined(figures={**last.get("figures", {}), "moving": True})
    return _died(last, process.returncode, complaint)


def bare_environment() -> dict[str, str]:
    """Nothing of the worker's own, which holds secrets."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    # The child runs in its private folder, where a relative path would lead elsewhere.
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join([ROOT, *filter(os.path.isabs, given)]),
        "ANONYMIZED_TELEMETRY": "False",
    }


def last_said(said: str) -> dict[str, Any]:
    """The last whole line; a line that a kill cut short says nothing."""
    found: dict[str, Any] = {}
    for line in said.splitlines():
        try:
            heard = json.loads(line)
        except (ValueError, RecursionError):
            continue
        found = heard if isinstance(heard, dict) else found
    return found


def _has_moved(path: Path, last: dict[str, Any]) -> bool:
    """Whether an application wrote the index that was being opened: the copy was of two halves."""
    if "seen" not in last:
        return False
    now = view.within(view.signature(path), path / last["segment"])
    seen: list[list[object]] = last["seen"]
    return [list(file) for file in now] != seen


def _overdue(last: dict[str, Any], seconds: float) -> Examined:
    stage, figures = last.get("stage", "start"), last.get("figures", {})
    if stage == "open" and seconds < AMPLE_SECONDS:
        return Examined(figures={**figures, "opened": "out of time"})
    return Examined(
        finding=Finding(
            failure_type="temporary_failure",
            summary=f"looking at it took longer than {seconds:.1f} s (stage: {stage})",
        ),
        figures=figures,
    )


def _died(last: dict[str, Any], code: int, complaint: str) -> Examined:
    figures = last.get("figures", {})
    said = complaint.strip().splitlines()
    where = last.get("name", "the directory")
    if -code in (signal.SIGKILL, signal.SIGTERM, signal.SIGALRM):
        reason = f"the inspection of {where} was ended by {signal.Signals(-code).name}"
        return Examined(
            finding=Finding(failure_type="temporary_failure", summary=reason), figures=figures
        )
    if last.get("stage") == "open" and (code < 0 or "PanicException" in complaint):
        how = signal.Signals(-code).name if code < 0 else said[-1]
        finding = Finding(
            failure_type="index_corrupted", summary=f"opening {where} killed the process: {how}"
        )
        return Examined(finding=finding, figures=figures)
    raise RemedyError(f"the inspection ended with {code}: {said[-1] if said else 'no word'}")

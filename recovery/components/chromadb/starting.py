"""Starting a Chroma server whose process has ended; one that runs and hangs is left alone.

Nobody is interrupted by it, and whoever has files of it within reach looks at them first.
"""

from __future__ import annotations

import time

from recovery.components.chromadb.target import ChromaTarget
from recovery.deadline import Deadline
from recovery.errors import NoSuchProcess, RuntimeUnavailable, TargetUnreachable
from recovery.strategy import Journal

AWAY = frozenset({"connection_error", "connection_timeout"})
PATIENCE_SECONDS = 15.0
"""How long a server is waited for that others start: a restart policy, a supervisor."""
PAUSE = 1.0
NOBODY = "the policy has no runtime to start it with"


def has_ended(target: ChromaTarget, journal: Journal) -> bool:
    """Whether the runtime says so; not where it does not know, as while a container is replaced."""
    if target.runtime is None:
        return False
    from recovery.components.chromadb.server import ServerProcess

    try:
        found = ServerProcess(target, journal.remaining).inspect()
    except (NoSuchProcess, RuntimeUnavailable) as error:
        journal.note("whether its process runs is not known", why=error.message)
        return False
    journal.note("process found", state=found.detail, pid=found.pid)
    return not found.running


def start(target: ChromaTarget, journal: Journal) -> None:
    """Returns when it answers; raises what ``ServerProcess.start`` does."""
    from recovery.components.chromadb.server import ServerProcess

    journal.change("server started", ServerProcess(target, journal.remaining).start)


def await_answer(target: ChromaTarget, journal: Journal, patience: float = 0.0) -> None:
    """Start a server whose process has ended, or wait for whoever else starts it.

    Raises ``TargetUnreachable`` where it stays away for ``patience`` seconds.
    """
    within = Deadline(min(patience, journal.remaining()))
    while (summary := is_silent(target)) is not None:
        if not journal.dry_run and has_ended(target, journal):
            start(target, journal)
            return
        if within.left() <= 0:
            nobody = "" if target.runtime else f"; {NOBODY}"
            raise TargetUnreachable(f"{summary}{nobody}")
        time.sleep(min(PAUSE, journal.remaining()))


def is_silent(target: ChromaTarget) -> str | None:
    """What it means that the server does not answer; None where it does, whatever it says."""
    from recovery.components.chromadb import served
    from recovery.components.chromadb.findings import Budget

    if target.server is None:
        return None
    found = served.listen(target, target.server, Budget(target.answer_timeout)).finding
    return found.summary if found and found.failure_type in AWAY else None

"""Starting a Chroma server whose process has ended; one that runs and hangs is left alone.

Nobody is interrupted by it, and whoever has files of it within reach looks at them first.
"""

from __future__ import annotations

from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import NoSuchProcess, RuntimeUnavailable
from recovery.strategy import Journal

AWAY = frozenset({"connection_error", "connection_timeout"})
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

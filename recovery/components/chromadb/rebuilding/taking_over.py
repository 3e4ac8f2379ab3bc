"""A server after the files of an index changed: it must search the new one, and answer.

It looks an index up at each request, so that it mostly goes over by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recovery.components.chromadb.findings import Budget
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import RemedyError, TargetUnreachable
from recovery.finding import find_component

if TYPE_CHECKING:
    from recovery.components.chromadb.api import ChromaServer
    from recovery.strategy import Journal

NO_RECORD = "recovery.no-such-record"
INDEX_FAILURES = frozenset({"index_corrupted", "index_incomplete"})


@dataclass(frozen=True, slots=True)
class Late:
    """A collection with a new index; ``has_more``: its log holds more than the index does."""

    collection: str
    name: str
    dimension: int | None
    has_more: bool


def bring_over(target: ChromaTarget, url: str, journal: Journal, late: list[Late]) -> None:
    """Raises ``TargetUnreachable`` where the server is away and nothing says how it is run."""
    see_answering(target, url, journal)
    _index_the_rest(target, url, journal, late)
    from recovery.components.chromadb import served

    longest = find_component("chromadb").probe_seconds
    found = served.examine(target, url, Budget(min(longest, journal.remaining()))).finding
    if found is None:
        return
    journal.note("the server is not well yet", found=found.failure_type, summary=found.summary)
    if target.runtime is None:
        if not late:
            raise RemedyError(
                "no index on the disk is damaged, and what the server has in memory is:"
                f" it must be restarted, and the policy has no runtime for it ({found.summary})"
            )
        return
    restart(target, journal)


def see_answering(target: ChromaTarget, url: str, journal: Journal) -> None:
    """Start a server that died of its index. Raises ``TargetUnreachable``."""
    from recovery.components.chromadb import served

    seconds = min(target.answer_timeout, journal.remaining())
    found = served.listen(target, url, Budget(seconds)).finding
    if found is None or found.failure_type not in ("connection_error", "connection_timeout"):
        return
    if target.runtime is None:
        raise TargetUnreachable(f"{found.summary}; the policy has no runtime to start it with")
    from recovery.components.chromadb.server import ServerProcess

    process = ServerProcess(target, journal.remaining)
    if process.inspect().running and found.failure_type == "connection_timeout":
        restart(target, journal)
        return
    journal.change("server started", process.start)


def restart(target: ChromaTarget, journal: Journal) -> None:
    """Killed in between, the next run starts it."""
    from recovery.components.chromadb.server import ServerProcess

    process = ServerProcess(target, journal.remaining)
    journal.change("server stopped", process.stop)
    journal.change("server started", process.start)


def _index_the_rest(target: ChromaTarget, url: str, journal: Journal, late: list[Late]) -> None:
    """A server reads the rest of the log with the next write: this one changes no record."""
    from recovery.components.chromadb.api import ChromaServer, Unanswered

    waiting = [one for one in late if one.has_more and one.dimension]
    if not waiting:
        return
    budget = Budget(journal.remaining())
    with ChromaServer(target, url, budget) as server:
        for one in waiting:
            try:
                _touch(server, one)
            except Unanswered as error:
                journal.note(
                    f"{one.name}: its newest records are searched after the next write",
                    why=error.finding.summary,
                )


def _touch(server: ChromaServer, one: Late) -> None:
    vector = [0.0] * (one.dimension or 0)
    server.of_collection(one.collection, "POST", "update", ids=[NO_RECORD], embeddings=[vector])

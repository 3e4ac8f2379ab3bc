"""``chromadb.query_retry``: ask anew until queries answer, then have applications do so.

A server whose process has ended is started first: asking alone would never reach it.
"""

from __future__ import annotations

from recovery.components.chromadb import starting
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import RemedyError, TargetRefused, TargetUnreachable
from recovery.events import ProbeReport
from recovery.finding import find_component
from recovery.strategy import Journal, Parameters, strategy

PASSING = frozenset({*starting.AWAY, "temporary_failure", "high_latency"})
"""What may be over at the next attempt; everything else needs another remedy."""

SHARE = 0.5
"""The part of the time left that one look may take: the other is for the one that proves it."""


@strategy(
    component="chromadb",
    summary="Query with a fresh client, again and later each time; tell applications to do so.",
    # The playbook's three retries begin after 1.5, 3.8 and 7.1 seconds.
    timeout_seconds=10.0,
    max_retries=3,
    backoff_seconds=1.5,
)
def query_retry(target: ChromaTarget, _: Parameters, journal: Journal) -> None:
    """Raises ``TargetUnreachable`` while queries fail in a way that may pass, ``TargetRefused``
    where the token is refused, ``RemedyError`` where asking again cannot help, and what starting
    a server raises."""
    asked = _ask(target, journal)
    if asked.failure_type in starting.AWAY and starting.has_ended(target, journal):
        starting.start(target, journal)
        asked = _ask(target, journal)
    if asked.failure_type == "auth_failure":
        raise TargetRefused(asked.summary)
    if asked.failure_type in PASSING:
        raise TargetUnreachable(asked.summary)
    if not asked.healthy:
        raise RemedyError(f"asking again cannot help: {asked.summary}")
    journal.tell_applications("applications asked to query anew", "retry_queries")


def _ask(target: ChromaTarget, journal: Journal) -> ProbeReport:
    # Every worker knows every task; only who runs this one pays for the HTTP client.
    from recovery.components.chromadb.probe import probe

    longest = find_component("chromadb").probe_seconds
    asked = probe(target, min(longest, journal.remaining() * SHARE))
    journal.note("queried with a fresh client", found=asked.failure_type, **asked.figures)
    return asked

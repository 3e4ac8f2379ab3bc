"""``chromadb.query_retry``: ask anew until queries answer, then have applications do so."""

from __future__ import annotations

from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import RemedyError, TargetRefused, TargetUnreachable
from recovery.strategy import Journal, Parameters, find_component, strategy

PASSING = frozenset({"connection_error", "connection_timeout", "temporary_failure", "high_latency"})
"""What may be over at the next attempt; everything else needs another remedy."""


@strategy(
    component="chromadb",
    summary="Query with a fresh client, again and later each time; tell applications to do so.",
    timeout_seconds=5.0,
    max_retries=3,
    backoff_seconds=1.5,
)
def query_retry(target: ChromaTarget, _: Parameters, journal: Journal) -> None:
    """Raises ``TargetUnreachable`` while queries fail in a way that may pass, ``TargetRefused``
    where the token is refused, and ``RemedyError`` where asking again cannot help."""
    # Every worker knows every task; only who runs this one pays for the HTTP client.
    from recovery.components.chromadb.probe import probe

    longest = find_component("chromadb").probe_seconds
    asked = probe(target, min(longest, journal.remaining()))
    journal.note("queried with a fresh client", found=asked.failure_type, **asked.figures)
    if asked.failure_type == "auth_failure":
        raise TargetRefused(asked.summary)
    if asked.failure_type in PASSING:
        raise TargetUnreachable(asked.summary)
    if not asked.healthy:
        raise RemedyError(f"asking again cannot help: {asked.summary}")
    journal.tell_applications("applications asked to query anew", "retry_queries")

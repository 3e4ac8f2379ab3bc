"""ChromaDB: what a policy may say of it. Its probe and its remedies are not in this release."""

from __future__ import annotations

from recovery.strategy import Component, FailureType, Parameters, Strategy, TargetModel


class ChromaTarget(TargetModel):
    """One ChromaDB."""


class SnapshotRollback(Parameters):
    """``script`` is the playbook's; kept so that its files load, and never run."""

    script: str | None = None


COMPONENT = Component(
    name="chromadb",
    target=ChromaTarget,
    failure_types=(
        FailureType(name="connection_timeout", summary="the server does not answer in time"),
        FailureType(name="temporary_failure", summary="a query failed in a way that may pass"),
        FailureType(name="collection_missing", summary="a collection is not there"),
        FailureType(name="corrupted_metadata", summary="a collection's metadata cannot be read"),
        FailureType(name="index_corrupted", summary="the vector index cannot be loaded"),
        FailureType(name="index_incomplete", summary="queries return too few hits"),
        FailureType(name="data_corruption", summary="the database file is damaged"),
        FailureType(name="database_missing", summary="the database file is gone or empty"),
        FailureType(name="high_latency", summary="queries take too long"),
    ),
    planned=(
        Strategy(
            component="chromadb",
            name="query_retry",
            summary="Retry a failed query with backoff.",
            max_retries=3,
            backoff_seconds=1.5,
        ),
        Strategy(
            component="chromadb",
            name="collection_reload",
            summary="Open the collection anew from disk.",
        ),
        Strategy(
            component="chromadb",
            name="snapshot_rollback",
            summary="Put the newest verified snapshot in place of a damaged directory.",
            parameters=SnapshotRollback,
            destructive=True,
            timeout_seconds=30.0,
        ),
        Strategy(
            component="chromadb",
            name="index_rebuild",
            summary="Build the vector index anew from what is readable.",
            timeout_seconds=10.0,
        ),
    ),
)

"""What the component declares: its target, the ways in which it fails, and its remedies."""

from __future__ import annotations

from recovery.components.chromadb.target import ChromaTarget
from recovery.strategy import Component, FailureType

COMPONENT = Component(
    name="chromadb",
    target=ChromaTarget,
    probe="recovery.components.chromadb.probe:probe",
    light_probe="recovery.components.chromadb.probe:light",
    evidence="recovery.components.chromadb.evidence:evidence",
    probe_seconds=5.0,
    failure_types=(
        FailureType(name="connection_timeout", summary="the server does not answer in time"),
        FailureType(
            name="connection_error",
            summary="the server refuses or drops connections",
            is_a="connection_timeout",
        ),
        FailureType(name="temporary_failure", summary="a query failed in a way that may pass"),
        FailureType(name="high_latency", summary="queries take too long", is_a="temporary_failure"),
        FailureType(name="collection_missing", summary="a collection is not there"),
        FailureType(name="corrupted_metadata", summary="a collection's metadata cannot be read"),
        FailureType(name="index_corrupted", summary="the vector index cannot be loaded"),
        # The records are all there and searched are few of them: what rebuilds an index helps.
        FailureType(
            name="index_incomplete",
            summary="queries return too few hits",
            is_a="index_corrupted",
        ),
        FailureType(name="data_corruption", summary="the database file is damaged"),
        FailureType(
            name="database_missing",
            summary="the database is gone or empty",
            is_a="data_corruption",
        ),
        FailureType(
            name="auth_failure",
            summary="the server refuses the token, or the directory may not be read",
            remediable=False,
            needs_person=True,
        ),
    ),
    strategies=(
        "query_retry",
        "collection_reload",
        "snapshot_rollback",
        "index_rebuild",
        "orphan_removal",
    ),
)

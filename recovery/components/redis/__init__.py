"""Redis: its target, the ways in which it fails, and its remedies."""

from __future__ import annotations

from recovery.components.redis.target import RedisTarget
from recovery.strategy import Component, FailureType

COMPONENT = Component(
    name="redis",
    target=RedisTarget,
    probe="recovery.components.redis.probe:probe",
    evidence="recovery.components.redis.evidence:evidence",
    strategies=("reconnect", "flush_corrupted", "restart_container"),
    failure_types=(
        FailureType(name="connection_error", summary="the server refuses or drops connections"),
        # Known only where the policy says how the server is run. There is nothing to reconnect to.
        FailureType(name="process_down", summary="the server's process does not run"),
        FailureType(name="connection_timeout", summary="no connection in time"),
        FailureType(name="high_latency", summary="PING takes longer than the threshold"),
        FailureType(name="memory_pressure", summary="memory is nearly or wholly used up"),
        FailureType(name="corruption_detected", summary="keys are not what they should be"),
        # Clients are refused, which is what connection_error's remedies are for.
        FailureType(
            name="clients_exhausted",
            summary="maxclients is reached: new clients are refused",
            is_a="connection_error",
        ),
        # It accepts, so no client sees an error; each waits until its own timeout.
        FailureType(
            name="unresponsive",
            summary="the server accepts connections and answers nothing",
            is_a="connection_timeout",
        ),
        # No reconnecting lets a server write again: these go to the last rung.
        FailureType(
            name="persistence_error", summary="writes are refused, because saving failed (MISCONF)"
        ),
        FailureType(name="read_only", summary="a replica stands where a primary is expected"),
        # A server that loads its data will be ready by itself; a restart would begin anew.
        FailureType(name="loading", summary="the server is loading its data", remediable=False),
        FailureType(
            name="auth_failure",
            summary="the server refuses the credentials or the user's rights",
            remediable=False,
            needs_person=True,
        ),
    ),
)

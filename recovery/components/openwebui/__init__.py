"""Open WebUI: its target, the ways in which it fails, its remedies, and the road around it."""

from __future__ import annotations

from recovery.components.openwebui.target import OpenWebuiTarget
from recovery.strategy import Component, FailureType

COMPONENT = Component(
    name="openwebui",
    target=OpenWebuiTarget,
    probe="recovery.components.openwebui.probe:probe",
    light_probe="recovery.components.openwebui.probe:light",
    strategies=("token_refresh", "model_failover", "graceful_degradation"),
    # Long enough for one completion of a model that is slow to wake.
    probe_seconds=10.0,
    failure_types=(
        FailureType(name="service_unavailable", summary="the service cannot be reached"),
        # Who does not answer in time is as far away as who cannot be reached.
        FailureType(
            name="connection_timeout",
            summary="the service does not answer in time",
            is_a="service_unavailable",
        ),
        FailureType(name="high_latency", summary="answers take too long"),
        FailureType(name="auth_failure", summary="the token is refused"),
        FailureType(name="token_expired", summary="the token has run out, or is about to"),
        FailureType(name="model_unavailable", summary="the active model is not listed"),
        FailureType(name="model_error", summary="the active model fails"),
        FailureType(name="rate_limiting", summary="the service limits our requests"),
        FailureType(
            name="maintenance",
            summary="the service says that it is being maintained",
            is_a="service_unavailable",
        ),
    ),
)

"""Open WebUI: what a policy may say of it. Its probe and its remedies are not in this release."""

from __future__ import annotations

from recovery.strategy import Component, FailureType, Parameters, Strategy, TargetModel


class OpenWebuiTarget(TargetModel):
    """One Open WebUI."""


class ModelFailover(Parameters):
    """Models to fall back to, the most wanted first."""

    fallback_models: tuple[str, ...] = ("deepseek-chat", "gemini-pro", "gpt-4-turbo")


class GracefulDegradation(Parameters):
    """Whether the component's degraded mode is set while the direct route is in use."""

    degraded_mode: bool = True


COMPONENT = Component(
    name="openwebui",
    target=OpenWebuiTarget,
    failure_types=(
        FailureType(name="service_unavailable", summary="the service cannot be reached"),
        FailureType(name="connection_timeout", summary="the service does not answer in time"),
        FailureType(name="high_latency", summary="answers take too long"),
        FailureType(name="auth_failure", summary="the token is refused"),
        FailureType(name="token_expired", summary="the token has run out"),
        FailureType(name="model_unavailable", summary="the active model is not listed"),
        FailureType(name="model_error", summary="the active model fails"),
        FailureType(name="rate_limiting", summary="the service limits our requests"),
        FailureType(name="maintenance", summary="the service says that it is being maintained"),
    ),
    planned=(
        Strategy(
            component="openwebui",
            name="token_refresh",
            summary="Sign in again and store the new token.",
            max_retries=2,
        ),
        Strategy(
            component="openwebui",
            name="model_failover",
            summary="Make the first fallback model that answers the active one.",
            parameters=ModelFailover,
        ),
        Strategy(
            component="openwebui",
            name="graceful_degradation",
            summary="Route requests past Open WebUI to a direct provider.",
            parameters=GracefulDegradation,
        ),
    ),
)

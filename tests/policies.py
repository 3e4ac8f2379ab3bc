"""Policy files for tests: a real one, small, with what a test wants to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from recovery.config import Policy, load_policy


def policy_text(
    targets: dict[str, dict[str, Any]],
    *,
    reconnect: dict[str, Any] | None = None,
    extra_strategies: list[dict[str, Any]] | None = None,
    recovery: dict[str, Any] | None = None,
    component: dict[str, Any] | None = None,
    sections: dict[str, Any] | None = None,
) -> str:
    """A policy with Redis targets alone and the mode that they degrade to."""
    strategy = {
        "name": "reconnect",
        "max_retries": 3,
        "backoff_multiplier": 2,
        "timeout_seconds": 5,
        # Tests leak connections and want them killed at once.
        "idle_at_least": 0,
        "conditions": ["connection_timeout", "connection_error", "high_latency"],
        **(reconnect or {}),
    }
    document = {
        "recovery": {
            "max_attempts_per_hour": 3,
            "cooldown_seconds": 300,
            "redis": {
                "priority": "critical",
                "targets": targets,
                "strategies": [strategy, *(extra_strategies or [])],
                **(component or {}),
            },
            **(recovery or {}),
        },
        "degraded_modes": {
            "redis_unavailable": {
                "available_capabilities": ["basic_conversation"],
                "unavailable_capabilities": ["long_term_memory"],
            }
        },
        **(sections or {}),
    }
    return yaml.safe_dump(document, sort_keys=False)


def write_policy(folder: Path, *args: Any, **kwargs: Any) -> Path:
    path = folder / "recovery_config.yml"
    path.write_text(policy_text(*args, **kwargs))
    return path


def make_policy(folder: Path, *args: Any, **kwargs: Any) -> Policy:
    return load_policy(write_policy(folder, *args, **kwargs))

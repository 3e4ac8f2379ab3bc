"""A policy shown to people and editors: effective values, warnings, the JSON Schema."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from pydantic import SecretStr

from recovery.config.model import policy_document
from recovery.config.policy import Policy

MASK = "********"


def effective(policy: Policy) -> dict[str, Any]:
    """Every value that is in force, defaults included, as plain data with secrets masked."""
    shown: dict[str, Any] = _plain(policy.document.model_dump(mode="python", exclude_none=True))
    for name, component in policy.components.items():
        shown["recovery"][name]["targets"] = {
            target: _plain(model.model_dump(mode="python", exclude_none=True))
            for target, model in component.targets.items()
        }
    return shown


def warnings(policy: Policy) -> list[str]:
    """What is allowed and yet worth knowing, one sentence each."""
    found = []
    for component in policy.components.values():
        waiting = [s.name for s in component.strategies if not s.declaration.is_available]
        if waiting:
            found.append(
                f"recovery.{component.name}: this release cannot run {', '.join(waiting)} yet; "
                "the ladder passes over them"
            )
        found += [
            f"recovery.{component.name}: {strategy.obstacle}; the ladder passes over it"
            for strategy in component.strategies
            if strategy.declaration.is_available and strategy.obstacle
        ]
        if not component.strategies:
            found.append(f"recovery.{component.name}: no strategy is configured")
    mapped = set(policy.alerting.severity_mapping)
    found += [
        f"alerting.severity_mapping: no severity for {component.priority}, the priority of "
        f"{component.name}; P2 is used"
        for component in policy.components.values()
        if component.priority not in mapped
    ]
    if not policy.audit.enabled:
        found.append(
            "audit.enabled is false: what is recovered or refused leaves no audit entry; "
            "counters and alerts go on"
        )
    return found


def json_schema() -> dict[str, Any]:
    """The schema of ``recovery_config.yml``, for editors that complete and check as one types."""
    schema = policy_document().model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "recovery_config.yml"
    return schema


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, PurePath) else value

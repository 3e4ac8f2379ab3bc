"""The policy: the only reader of YAML. The environment comes along, for whoever needs both."""

from __future__ import annotations

from recovery.config.loading import current_policy, find_policy_file, load_policy
from recovery.config.policy import (
    ComponentPolicy,
    DegradedModePolicy,
    Limits,
    Policy,
    StrategyPolicy,
)
from recovery.config.presentation import effective, json_schema, warnings
from recovery.environment import Environment

__all__ = [
    "ComponentPolicy",
    "DegradedModePolicy",
    "Environment",
    "Limits",
    "Policy",
    "StrategyPolicy",
    "current_policy",
    "effective",
    "find_policy_file",
    "json_schema",
    "load_policy",
    "warnings",
]

"""Switching scopes off and on: which scope is meant, and who did it in the audit trail."""

from __future__ import annotations

import json

import pytest

from recovery import audit, disabling
from recovery.errors import InvalidEvent
from tests.cli.test_commands import recovery
from tests.stack import Stack
from tests.test_policy_behaviour import Gate, gate

__all__ = ["gate"]


def test_who_switches_what_off_and_on_stands_in_the_trail(gate: Gate) -> None:
    control, policy = gate.control, gate.policy
    disabling.disable(control, policy, "redis", by="eva", reason="night", seconds=60)
    assert disabling.enable(control, policy, "redis", by="max", reason="day")
    assert not disabling.enable(control, policy, "redis", by="max")

    on, off = (dict(entry.fields) for entry in audit.latest(control, 10, None))

    assert off == {"target": "redis", "result": "disabled", "by": "eva", "reason": "night",
                   "seconds": 60, "n": 1}  # fmt: skip
    assert on == {"target": "redis", "result": "enabled", "by": "max", "reason": "day", "n": 2}


@pytest.mark.parametrize(
    ("component", "target", "scope"),
    [
        (None, None, "all"),
        ("redis", None, "redis"),
        ("redis", "other", "redis/other"),
        ("redis", "redis/other", "redis/other"),
        (None, "redis/other", "redis/other"),
    ],
)
def test_a_scope_is_never_wider_than_what_was_said(
    gate: Gate, component: str | None, target: str | None, scope: str
) -> None:
    assert disabling.scope_of(gate.policy, component, target) == scope


@pytest.mark.parametrize(
    ("component", "target"),
    [(None, "other"), ("redis", "system/other"), (None, "redis/nobody"), ("klingon", None)],
)
def test_a_scope_that_nobody_has_is_said(gate: Gate, component: str | None, target: str) -> None:
    with pytest.raises(InvalidEvent):
        disabling.scope_of(gate.policy, component, target)


def test_history_shows_who_switched_it_off_and_on(stack: Stack) -> None:
    recovery(stack, "disable", "--target", "redis/default", "--by", "eva", "--reason", "night")
    recovery(stack, "enable", "--target", "redis/default", "--by", "max")

    told = json.loads(recovery(stack, "history", "--json").stdout)
    shown = recovery(stack, "history").stdout

    assert [(one["target"], one["result"], one["by"]) for one in told] == [
        ("redis/default", "disabled", "eva"),
        ("redis/default", "enabled", "max"),
    ]
    assert "by eva: night" in " ".join(shown.split())

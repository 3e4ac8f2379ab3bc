"""From an alert's labels to what has failed, by the policy's rules: pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from recovery.config.alerting import OUR_LABELS, PLACEHOLDER, AlertRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What an alert says; nothing of it is known to exist yet."""

    component: str
    target: str | None
    failure_type: str


def meaning(labels: Mapping[str, str], rules: Iterable[AlertRule]) -> Meaning | None:
    """By the first rule that fits and finds its labels; None where there is none."""
    for rule in (*rules, OUR_LABELS):
        if _fits(rule, labels) and (found := _apply(rule, labels)):
            return found
    return None


def _fits(rule: AlertRule, labels: Mapping[str, str]) -> bool:
    return all(
        re.fullmatch(pattern, labels.get(name, "")) is not None
        for name, pattern in rule.match.items()
    )


def _apply(rule: AlertRule, labels: Mapping[str, str]) -> Meaning | None:
    component, failure_type = _fill(rule.component, labels), _fill(rule.failure_type, labels)
    if component is None or failure_type is None:
        return None
    target = None if rule.target is None else _fill(rule.target, labels)
    return Meaning(component=component, target=target, failure_type=failure_type)


def _fill(template: str, labels: Mapping[str, str]) -> str | None:
    """The text with the labels' values; None where it needs one that is missing or empty."""
    if not all(labels.get(name) for name in PLACEHOLDER.findall(template)):
        return None
    return PLACEHOLDER.sub(lambda match: labels[match[1]], template)

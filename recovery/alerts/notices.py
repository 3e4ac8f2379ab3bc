"""What an alert says to whoever reads it: from a fact of the outbox to a notice. Sends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from recovery.errors import InvalidEvent
from recovery.events import Result

if TYPE_CHECKING:
    from recovery.config import Policy

SEVERITIES = ("P0", "P1", "P2", "P3")
WITHOUT_PRIORITY = "P2"

OVER = frozenset({"degraded_over", "resolved", "storm_over"})
"""Kinds that tell that something else is over."""

PERSON_NEEDED = "RecoveryPersonNeeded"
_PERSONS_LEVEL = 3

NAMES: Mapping[str, str] = {
    "recovery": "RecoveryConcluded",
    "cooldown": "RecoveryCooldown",
    "degraded": "RecoveryDegradedMode",
    "degraded_over": "RecoveryDegradedMode",
    "level": PERSON_NEEDED,
    "resolved": PERSON_NEEDED,
    "approval": "RecoveryApprovalPending",
    "route": "RecoveryRouteChanged",
    "snapshot": "RecoverySnapshotFailed",
    "storm": "RecoveryStorm",
    "storm_over": "RecoveryStorm",
    "not_probed": "RecoveryProbeBroken",
}

_LABELS = ("strategy", "result", "mode")
_SENTENCES: Mapping[str, str] = {
    "cooldown": "{target} is left alone for {seconds:g} s after a failed recovery",
    "degraded": "{target} is in the degraded mode {mode}",
    "degraded_over": "{target} has left the degraded mode {mode}",
    "level": "{target} is at level {level}: {why}",
    "resolved": "{target} is healthy again",
    "snapshot": "no snapshot of {target} could be taken: {why}",
    "approval": "{strategy} of {target} waits for a person's approval",
    "route": "applications reach {target} by the {road} road now, model {model}",
    "storm": "{why}: nothing is repaired but what others stand on",
    "storm_over": "no storm any more after {seconds:.0f} s: everything is repaired again",
    "not_probed": "{target} cannot be probed: {why}",
}
_RESULTS: Mapping[str, str] = {
    Result.RECOVERED: "{target} was repaired by {strategy}",
    Result.REROUTED: "{target} is not repaired; {strategy} leads people around it",
    Result.FAILED: "{strategy} could not repair {target}",
    Result.NOT_NEEDED: "{target} needed no {strategy}: it is healthy",
    Result.DENIED: "{strategy} of {target} was denied",
    Result.EXPIRED: "nobody approved {strategy} of {target} in time",
    Result.WITHDRAWN: "{strategy} of {target} needs no approval any more",
    Result.UNCLAIMED: "no worker took {strategy} of {target} from its queue",
    Result.UNDONE: "{strategy} of {target} was undone",
    Result.NOT_UNDONE: "{strategy} of {target} could not be undone",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One alert for people and their tools.

    ``labels`` are what it is recognised by; ``runbook`` and ``page`` are links, where the policy
    knows their addresses. ``is_over``: it tells of an end.
    """

    kind: str
    name: str
    severity: str
    summary: str
    at: datetime
    labels: Mapping[str, str] = field(default_factory=dict)
    recovery_id: str | None = None
    runbook: str | None = None
    page: str | None = None
    is_over: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "severity": self.severity,
            "summary": self.summary,
            "at": self.at.isoformat(timespec="milliseconds"),
            "labels": dict(self.labels),
            "recovery_id": self.recovery_id,
            "runbook": self.runbook,
            "page": self.page,
            "is_over": self.is_over,
        }


def is_wanted(policy: Policy, fact: Mapping[str, Any]) -> bool:
    """Whether the policy's ``alert_on_*`` keys ask for this kind; a call for a person always is."""
    alerting = policy.alerting
    if not alerting.enabled:
        return False
    kind = fact["kind"]
    if kind == "recovery":
        return alerting.alert_on_recovery and fact["result"] != Result.DRY_RUN
    if kind == "cooldown":
        return alerting.alert_on_cooldown
    if kind in ("degraded", "degraded_over"):
        return alerting.alert_on_degraded_mode
    return True


def notice_of(policy: Policy, fact: Mapping[str, Any]) -> Notice:
    """A fact of the outbox in words, of whatever kind it is."""
    kind, target = str(fact["kind"]), str(fact.get("target", ""))
    component, _, name = target.partition("/")
    strategy = fact.get("strategy")
    labels = {"component": component, "target": name or target}
    labels |= {key: str(fact[key]) for key in _LABELS if fact.get(key)}
    return Notice(
        kind=kind,
        name=_name(kind, fact),
        severity=_severity(policy, fact, component, strategy),
        summary=_summary(kind, fact),
        at=datetime.fromtimestamp(fact.get("at", 0) / 1000, UTC),
        labels=labels,
        recovery_id=fact.get("id"),
        runbook=runbook_of(policy, kind, component, strategy),
        page=page_of(policy, fact.get("id") if kind == "approval" else None),
        is_over=kind in OVER or fact.get("result") in (Result.RECOVERED, Result.NOT_NEEDED),
    )


def _severity(policy: Policy, fact: Mapping[str, Any], component: str, strategy: str | None) -> str:
    """A recovery that ended well is news, and wakes nobody."""
    if fact["kind"] == "recovery" and Result(fact["result"]).is_good:
        return SEVERITIES[-1]
    return fact.get("severity") or severity_of(policy, component, strategy)


def _name(kind: str, fact: Mapping[str, Any]) -> str:
    if kind == "level" and int(fact["level"]) < _PERSONS_LEVEL:
        return "RecoveryEscalated"
    return NAMES.get(kind) or f"Recovery{kind.title().replace('_', '')}"


def severity_of(policy: Policy, component: str, strategy: str | None = None) -> str:
    """By the policy's mapping; of a strategy that it does not know, its component's."""
    try:
        return policy.severity(component, strategy)
    except InvalidEvent:
        return severity_of(policy, component) if strategy else WITHOUT_PRIORITY


def runbook_of(policy: Policy, kind: str, component: str, strategy: str | None) -> str | None:
    base = policy.alerting.runbook_url
    if base is None:
        return None
    return f"{base.rstrip('/')}/{_page_name(kind, component, strategy)}.md"


def page_of(policy: Policy, approval: str | None = None) -> str | None:
    """The status page, and on it the approval that is waited for."""
    base = policy.http.public_url
    if base is None:
        return None
    return f"{base.rstrip('/')}/" + (f"#a:{approval}" if approval else "")


def _page_name(kind: str, component: str, strategy: str | None) -> str:
    if kind in ("level", "resolved"):
        return "escalation"
    if kind in ("degraded", "degraded_over"):
        return f"mode-{component}-unavailable"
    if strategy is not None:
        return f"{component}-{strategy}".replace("_", "-")
    return "audit" if component == "audit" else "README"


def _summary(kind: str, fact: Mapping[str, Any]) -> str:
    sentence = _RESULTS.get(fact["result"]) if kind == "recovery" else _SENTENCES.get(kind)
    if sentence is None:
        why = fact.get("why") or fact.get("detail") or fact.get("result") or ""
        return f"{fact.get('target', 'recovery')}: {kind.replace('_', ' ')}: {why}".rstrip(": ")
    return sentence.format_map(fact)

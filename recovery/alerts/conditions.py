"""What holds now and is worth an alert while it does: read from the control plane, never kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from recovery import approvals, modes
from recovery.alerts.notices import Notice, notice_of
from recovery.controlplane import reachable

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.controlplane import ControlPlane

PERSON_NEEDED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """``ends``: when it is over by itself; None where it lasts until somebody or something acts."""

    notice: Notice
    ends: datetime | None = None


def conditions(control: ControlPlane, policy: Policy) -> tuple[Condition, ...]:
    """Everything that holds now; raises ``ControlPlaneUnavailable``."""
    alerting = policy.alerting
    if not alerting.enabled:
        return ()
    found = [*_of_targets(control, policy), *_approvals(control, policy)]
    if alerting.alert_on_degraded_mode:
        found += _modes(control, policy)
    return tuple(found)


def _of_targets(control: ControlPlane, policy: Policy) -> Iterator[Condition]:
    refs = policy.target_refs()
    now_ms = control.now_ms()
    with reachable():
        pipe = control.redis.pipeline(transaction=False)
        for ref in refs:
            pipe.hmget(control.key("target", ref), "level", "level_since", "level_why")
            pipe.pttl(control.key("cooldown", ref))
            pipe.lindex(control.key("outcomes", ref), 0)
        answers = pipe.execute()
    rows = zip(refs, answers[::3], answers[1::3], answers[2::3], strict=True)
    for ref, (level, since, why), cooldown_ms, last in rows:
        fact: dict[str, Any] = {"target": str(ref)}
        if int(level or 1) >= PERSON_NEEDED:
            told = {**fact, "kind": "level", "level": level, "why": why or "a person is needed"}
            yield Condition(notice=notice_of(policy, {**told, "at": int(since or now_ms)}))
        fact["strategy"] = json.loads(last)["strategy"] if last else None
        if cooldown_ms > 0 and policy.alerting.alert_on_cooldown:
            seconds = policy.limits(ref).cooldown_seconds
            ends = now_ms + cooldown_ms
            begun = min(ends - int(seconds * 1000), now_ms)
            told = {**fact, "kind": "cooldown", "seconds": seconds, "at": begun}
            yield Condition(
                notice=notice_of(policy, told), ends=datetime.fromtimestamp(ends / 1000, UTC)
            )


def _modes(control: ControlPlane, policy: Policy) -> Iterator[Condition]:
    for mode in modes.active(control, policy):
        fact = {
            "kind": "degraded",
            "target": mode.target,
            "mode": mode.mode,
            "id": mode.recovery_id,
            "at": int(mode.since.timestamp() * 1000),
        }
        yield Condition(notice=notice_of(policy, fact))


def _approvals(control: ControlPlane, policy: Policy) -> Iterator[Condition]:
    for waiting in approvals.pending(control):
        if waiting.approved_by is not None:
            continue
        fact = {
            "kind": "approval",
            "target": waiting.target,
            "strategy": waiting.strategy,
            "id": waiting.id,
            "at": int(waiting.since.timestamp() * 1000),
        }
        yield Condition(notice=notice_of(policy, fact), ends=waiting.expires)

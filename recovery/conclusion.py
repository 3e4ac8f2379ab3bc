"""The end of a recovery: all that a conclusion changes, said to the control plane at once."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING

from recovery import audit
from recovery.admission import RECORD_TTL_SECONDS
from recovery.events import ALL_ELSE_FAILED, Outcome, Result

if TYPE_CHECKING:
    from recovery.config import DegradedModePolicy, Policy, StrategyPolicy
    from recovery.controlplane import ControlPlane
    from recovery.records import Recovery

NO_LEASE = ""
STALE_LEASE = "stale"
ADOPTED = "adopted"

DURATION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300)
"""Upper bounds, in seconds, of the recovery duration histogram."""


class Conclusion(StrEnum):
    CONCLUDED = "concluded"
    ALREADY = "already"
    LOST = "lost"


def conclude(
    control: ControlPlane, policy: Policy, recovery: Recovery, outcome: Outcome, token: str
) -> Conclusion:
    """Write the outcome in one atomic step; raises ``ControlPlaneUnavailable``.

    ``token`` is the lease's fence, or ``NO_LEASE``, ``STALE_LEASE`` for a holder taken for dead,
    or ``ADOPTED`` for what a host did while the control plane was away.
    Saying it twice changes nothing the second time. What the policy has no longer is concluded,
    too: by everybody's rules.
    """
    target = recovery.target
    is_served = policy.serves(target, recovery.strategy)
    strategy = policy.strategy(target.component, recovery.strategy) if is_served else None
    limits = policy.limits(target) if is_served else policy.everybodys_limits
    mode = policy.degraded_mode(target) if strategy else None
    is_detour = outcome.result is Result.REROUTED
    if is_detour and strategy and not strategy.parameters.sets_degraded_mode:
        mode = None
    past = {
        "strategy": recovery.strategy,
        "failure_type": recovery.event.failure_type,
        "result": outcome.result.value,
    }
    answer, _level, _entry = control.run(
        "conclude",
        recovery.id,
        str(target),
        target.component,
        recovery.strategy,
        token,
        outcome.result.value,
        audit.compose(recovery, outcome) if policy.audit.enabled else "",
        json.dumps(outcome.as_dict(), separators=(",", ":")),
        json.dumps(past, separators=(",", ":")),
        f"{outcome.duration:.6f}",
        int(limits.cooldown_seconds * 1000),
        _as_json(mode),
        policy.escalation.failures_for_level_3,
        _why_a_person(strategy, outcome) if strategy else "",
        RECORD_TTL_SECONDS,
        policy.severity(target.component, recovery.strategy) if strategy else "",
        ",".join(str(bound) for bound in DURATION_BUCKETS),
    )
    return Conclusion(answer)


def _why_a_person(strategy: StrategyPolicy, outcome: Outcome) -> str:
    """Why this failure alone calls somebody; empty where it does not."""
    if outcome.result is not Result.FAILED:
        return ""
    if outcome.needs_person:
        return f"{strategy.name}: {outcome.detail}"
    is_final = strategy.declaration.destructive or ALL_ELSE_FAILED in strategy.conditions
    return f"{strategy.name} is the last resort, and it failed" if is_final else ""


def degrade(control: ControlPlane, policy: Policy, recovery: Recovery) -> None:
    """Have the target's degraded mode hold while its recovery runs; ``conclude`` ends it.

    Raises ``ControlPlaneUnavailable``.
    """
    target = recovery.target
    control.run(
        "degrade",
        str(target),
        _as_json(policy.degraded_mode(target)),
        recovery.id,
        policy.severity(target.component, recovery.strategy),
    )


def _as_json(mode: DegradedModePolicy | None) -> str:
    """The mode as it is stored and published, so that applications need no policy to read it."""
    if mode is None:
        return ""
    said = {
        "mode": mode.name,
        "available": mode.available_capabilities,
        "unavailable": mode.unavailable_capabilities,
    }
    return json.dumps(said, separators=(",", ":"))

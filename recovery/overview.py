"""The state of everything at one moment: what ``recovery status`` shows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from recovery import approvals, audit, disabling, metrics, modes
from recovery.config import Environment
from recovery.controlplane import reachable

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.controlplane import ControlPlane
    from recovery.events import TargetRef

_HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetState:
    """One target now. ``cooldown_seconds`` is what is left of it; None where there is none."""

    target: str
    level: int
    attempts_in_hour: int
    max_attempts_per_hour: int
    cooldown_seconds: float | None
    on_probation: bool
    recovery_id: str | None
    phase: str | None
    holder: str | None
    last_result: str | None
    last_strategy: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What a person wants to know first."""

    recoveries: int
    recovered: int
    failed: int
    refused: int
    success_rate: float | None
    targets: tuple[TargetState, ...]
    degraded: tuple[modes.DegradedMode, ...]
    pending: tuple[approvals.PendingApproval, ...]
    disabled: tuple[disabling.Disabled, ...]
    recent: tuple[audit.AuditEntry, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "recoveries": self.recoveries,
            "recovered": self.recovered,
            "failed": self.failed,
            "refused": self.refused,
            "success_rate": self.success_rate,
            "targets": [asdict(target) for target in self.targets],
            "degraded_modes": [mode.as_dict() for mode in self.degraded],
            "pending_approvals": [approval.as_dict() for approval in self.pending],
            "disabled": [scope.as_dict() for scope in self.disabled],
            "recent": [entry.as_dict() for entry in self.recent],
        }


def overview(control: ControlPlane, policy: Policy, recent: int = 10) -> Overview:
    """Raises ``ControlPlaneUnavailable``."""
    counted = metrics.snapshot(control)
    return Overview(
        recoveries=counted.recovered + counted.failed,
        recovered=counted.recovered,
        failed=counted.failed,
        refused=sum(counted.refused.values()),
        success_rate=counted.success_rate,
        targets=target_states(control, policy),
        degraded=modes.active(control, policy),
        pending=approvals.pending(control),
        disabled=disabling.disabled(control, policy),
        recent=audit.latest(control, recent, audit.folder_of(policy, Environment.read())),
    )


def target_states(control: ControlPlane, policy: Policy) -> tuple[TargetState, ...]:
    """One line a target of the policy, in the policy's order."""
    refs = policy.target_refs()
    since = control.now_ms() - _HOUR_MS
    with reachable():
        pipe = control.redis.pipeline(transaction=False)
        for ref in refs:
            pipe.hgetall(control.key("target", ref))
            pipe.zcount(control.key("attempts", ref), since, "+inf")
            pipe.pttl(control.key("cooldown", ref))
            pipe.hgetall(control.key("lease", ref))
            pipe.lindex(control.key("outcomes", ref), 0)
        answers = pipe.execute()
    rows = zip(*(iter(answers),) * 5, strict=True)
    return tuple(_state(policy, ref, *row) for ref, row in zip(refs, rows, strict=True))


def _state(  # noqa: PLR0917 - one argument a column of the pipeline
    policy: Policy,
    ref: TargetRef,
    held: dict[str, str],
    attempts: int,
    cooldown_ms: int,
    lease: dict[str, str],
    last: str | None,
) -> TargetState:
    past = json.loads(last) if last else {}
    return TargetState(
        target=str(ref),
        level=int(held.get("level", 1)),
        attempts_in_hour=attempts,
        max_attempts_per_hour=policy.limits(ref).max_attempts_per_hour,
        cooldown_seconds=cooldown_ms / 1000 if cooldown_ms > 0 else None,
        on_probation="trial" in held,
        recovery_id=lease.get("id"),
        phase=lease.get("phase"),
        holder=lease.get("holder"),
        last_result=past.get("result"),
        last_strategy=past.get("strategy"),
    )

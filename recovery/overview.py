"""The state of everything at one moment: what ``recovery status`` shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recovery import approvals, audit, disabling, modes
from recovery.config import Environment
from recovery.measurement import TargetState, measure

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.controlplane import ControlPlane


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
            "targets": [target.as_dict() for target in self.targets],
            "degraded_modes": [mode.as_dict() for mode in self.degraded],
            "pending_approvals": [approval.as_dict() for approval in self.pending],
            "disabled": [scope.as_dict() for scope in self.disabled],
            "recent": [entry.as_dict() for entry in self.recent],
        }


def overview(control: ControlPlane, policy: Policy, recent: int = 10) -> Overview:
    """Raises ``ControlPlaneUnavailable``."""
    now = measure(control, policy)
    return Overview(
        recoveries=now.counted.recovered + now.counted.failed,
        recovered=now.counted.recovered,
        failed=now.counted.failed,
        refused=sum(now.counted.refused.values()),
        success_rate=now.counted.success_rate,
        targets=now.targets,
        degraded=now.degraded,
        pending=approvals.pending(control),
        disabled=now.disabled,
        recent=audit.latest(control, recent, audit.folder_of(policy, Environment.read())),
    )

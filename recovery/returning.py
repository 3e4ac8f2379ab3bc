"""Leads applications back to where the policy wants them, once that has been healthy for long.

Knows when, and nothing of how health is read: whoever has looked says what was seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from recovery.routing import Road, Route

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.controlplane import ControlPlane
    from recovery.events import ProbeReport, TargetRef

LOOK_SECONDS = 10.0
"""How often somebody looks at what applications have left."""

LONGEST_PAUSE_SECONDS = 4 * LOOK_SECONDS
"""Health that nobody saw for longer has to be proven anew."""


class Way(StrEnum):
    """``changed``: the route is another one by now. ``busy``: a recovery decides."""

    CHANGED = "changed"
    BUSY = "busy"
    DISABLED = "disabled"
    UNHEALTHY = "unhealthy"
    WAITING = "waiting"
    LED_BACK = "led_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """Where applications could go back to, and what was seen there."""

    model: str | None
    report: ProbeReport
    road: Road = Road.OPENWEBUI


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """``seconds``: how long it still has to stay healthy."""

    way: Way
    seconds: float = 0.0


def consider(
    control: ControlPlane,
    policy: Policy,
    target: TargetRef,
    route: Route,
    goal: Goal,
    *,
    return_after: float,
) -> Return:
    """Write down one look, and lead back where it is time; raises ``ControlPlaneUnavailable``."""
    way, left_ms, _ = control.run(
        "lead_back",
        str(target),
        route.generation,
        goal.road.value,
        goal.model or "",
        int(goal.report.healthy),
        int(return_after * 1000),
        int(max(LONGEST_PAUSE_SECONDS, return_after / 2) * 1000),
        goal.report.summary,
        int(policy.audit.enabled),
    )
    return Return(way=Way(way), seconds=int(left_ms) / 1000)

"""Keeps routes as the policy describes them, and leads applications back once it is safe.

Back to the primary model, and from the direct road to Open WebUI: when what they left has been
healthy for long enough, and for longer each time that it did not last.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import structlog

from recovery import routing, upkeep
from recovery.components.openwebui import homeward
from recovery.components.openwebui.standing import as_the_policy_says
from recovery.components.openwebui.target import OpenWebuiTarget
from recovery.finding import find_component
from recovery.memory import reminded

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.controlplane import ControlPlane
    from recovery.events import ProbeReport, TargetRef
    from recovery.routing import Route

LOOK_SECONDS = 10.0
"""How often somebody looks at what applications have left."""

LONGEST_PAUSE_SECONDS = 4 * LOOK_SECONDS
"""Health that nobody saw for longer has to be proven anew."""

log = structlog.get_logger()


class Way(StrEnum):
    """``home``: they are where the policy wants them. ``changed``: the route is another one by
    now. ``busy``: a recovery decides. ``disabled``: a person wants nothing to change."""

    HOME = "home"
    CHANGED = "changed"
    BUSY = "busy"
    DISABLED = "disabled"
    UNHEALTHY = "unhealthy"
    WAITING = "waiting"
    LED_BACK = "led_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """``seconds``: how long it still has to stay healthy."""

    way: Way
    seconds: float = 0.0


def follow(control: ControlPlane, policy: Policy, ref: TargetRef) -> Return:
    """One look; raises ``ControlPlaneUnavailable``, and ``MemoryAway`` alike."""
    target = reminded(control, policy, ref)
    if not isinstance(target, OpenWebuiTarget):
        return Return(way=Way.HOME)
    stored = routing.read(control, ref)
    route = routing.change(control, ref, **as_the_policy_says(target, stored))
    upkeep.renew(control, target)
    if route.is_home:
        return Return(way=Way.HOME)
    longest = find_component(ref.component).probe_seconds
    model, report = homeward.look(target, route, longest)
    ended = _consider(control, policy, ref, route, model, report, target.return_after)
    log.info("looked back", target=str(ref), way=ended.way.value, seen=report.summary)
    return ended


def _consider(  # noqa: PLR0917 - called in one place
    control: ControlPlane,
    policy: Policy,
    ref: TargetRef,
    route: Route,
    model: str | None,
    report: ProbeReport,
    return_after: float,
) -> Return:
    way, left_ms, _ = control.run(
        "lead_back",
        str(ref),
        route.generation,
        routing.Road.OPENWEBUI.value,
        model or "",
        int(report.healthy),
        int(return_after * 1000),
        int(max(LONGEST_PAUSE_SECONDS, return_after / 2) * 1000),
        report.summary,
        int(policy.audit.enabled),
    )
    return Return(way=Way(way), seconds=int(left_ms) / 1000)

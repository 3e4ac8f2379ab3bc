"""What applications have left, looked at while they are away: the primary model, the service.

It only looks. Whether and when they are led back is decided where all looks are known.
"""

from __future__ import annotations

from dataclasses import replace

from recovery.components.openwebui import probe
from recovery.components.openwebui.known import known
from recovery.components.openwebui.target import OpenWebuiTarget
from recovery.events import ProbeReport
from recovery.routes import Road, Route


def look(target: OpenWebuiTarget, route: Route, timeout: float) -> tuple[str | None, ProbeReport]:
    """The model with which applications could go back, and what was seen of it: the primary, or
    from the direct road the one that was active before, where the primary is still away."""
    report = _look_at(target, target.model, timeout)
    if report.healthy or route.road is Road.OPENWEBUI or route.model == target.model:
        return target.model, report
    return route.model, _look_at(target, route.model, timeout)


def _look_at(target: OpenWebuiTarget, model: str | None, timeout: float) -> ProbeReport:
    """Everything up to a word of the model, unless the policy never wants that."""
    what = replace(known(target, target.memory), model=model)
    asks = target.test_completion != "never"
    return probe.look(target, what, timeout, refresh=True, asks_model=asks)

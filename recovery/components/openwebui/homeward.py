"""What applications have left, looked at while they are away: the primary model, the service itself.

It only looks. Whether and when they are led back is decided where all looks are known.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from recovery import encryption
from recovery.components.openwebui import probe
from recovery.components.openwebui.known import known
from recovery.components.openwebui.target import OpenWebuiTarget
from recovery.errors import ConfigError, Unreadable
from recovery.events import ProbeReport
from recovery.routes import Road, Route


def as_the_policy_says(target: OpenWebuiTarget, route: Route | None) -> dict[str, Any]:
    """What a route should hold of the policy. A first one leads home; a later one keeps its road,
    and its model, unless that was the primary of before."""
    said: dict[str, Any] = {
        "base_url": target.base_url,
        "primary_model": target.model,
        "direct": asdict(target.direct.published) if target.direct else None,
    }
    if route is None or route.base_url != target.base_url or _leads_nowhere(target, route):
        said |= {"road": Road.OPENWEBUI.value, "model": target.model}
    elif route.model == route.primary_model:
        said["model"] = target.model
    if (again := _reencrypted(route)) is not None:
        said["token"] = again
    return said


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


def _leads_nowhere(target: OpenWebuiTarget, route: Route) -> bool:
    """On a direct road that the policy has no more."""
    return route.road is Road.DIRECT and target.direct is None


def _reencrypted(route: Route | None) -> str | None:
    """The token by the newest key, where an older one encrypted it."""
    if route is None or route.token is None:
        return None
    try:
        return encryption.rotated(route.token)
    except (ConfigError, Unreadable):
        return None

"""What a target's route holds of the policy, whoever writes it first."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from recovery import encryption
from recovery.components.openwebui.target import OpenWebuiTarget
from recovery.errors import ConfigError, Unreadable
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

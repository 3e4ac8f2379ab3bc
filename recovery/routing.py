"""The routes of Open WebUI targets in the control plane: read, changed, and told to applications.

Hash ``routes``, target → the JSON of a ``Route``; every change is published as the same JSON on the
channel ``routes``, in the same atomic step.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import structlog

from recovery.controlplane import reachable
from recovery.errors import LeaseLost
from recovery.events import TargetRef
from recovery.routes import Direct, Provider, Road, Route, TokenKind

if TYPE_CHECKING:
    from recovery.controlplane import ControlPlane

__all__ = ["ROUTES", "Direct", "Provider", "Road", "Route", "TokenKind", "change", "read", "routes"]

ROUTES = "routes"
"""Both the hash and the channel (prefixed)."""

CHANGEABLE = frozenset(
    {
        "road",
        "base_url",
        "model",
        "primary_model",
        "token",
        "token_kind",
        "token_expires",
        "direct",
    }
)

log = structlog.get_logger()


def read(control: ControlPlane, target: TargetRef | str) -> Route | None:
    """Raises ``ControlPlaneUnavailable``."""
    with reachable():
        stored = control.redis.hget(control.key(ROUTES), str(target))
    return _parsed(str(target), stored) if stored else None


def routes(control: ControlPlane) -> dict[str, Route]:
    """Every route by its target; raises ``ControlPlaneUnavailable``."""
    with reachable():
        stored = control.redis.hgetall(control.key(ROUTES))
    parsed = ((target, _parsed(target, text)) for target, text in sorted(stored.items()))
    return {target: route for target, route in parsed if route is not None}


def change(
    control: ControlPlane,
    target: TargetRef | str,
    *,
    recovery_id: str | None = None,
    fence: str | None = None,
    **changes: Any,
) -> Route:
    """Merge ``changes`` into the target's route and publish it; the route that then holds.

    ``fence``: only while this lease is the target's. What changes nothing is not told. Raises
    ``LeaseLost`` and ``ControlPlaneUnavailable``.
    """
    unknown = set(changes) - CHANGEABLE
    if unknown:
        raise TypeError(f"not part of a route: {', '.join(sorted(unknown))}")
    answer, text = control.run(
        "route",
        str(target),
        json.dumps(changes, separators=(",", ":")),
        recovery_id or "",
        fence or "",
    )
    if answer == "lost":
        raise LeaseLost(f"the lease of {target} was lost before its route was changed")
    return Route.from_json(text)


def _parsed(target: str, text: str) -> Route | None:
    try:
        return Route.from_json(text)
    except ValueError as error:
        log.warning("route cannot be read", target=target, why=str(error))
        return None

"""What still works while a component does not: one question for applications, and a subscription.

A degraded mode is set when a recovery of a target failed and cleared when a probe has proven the
target healthy; both happen in the script that concludes a recovery.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from recovery.controlplane import reachable

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.controlplane import ControlPlane


@dataclass(frozen=True, slots=True, kw_only=True)
class DegradedMode:
    """A mode that a target is in, with what applications can and cannot do meanwhile."""

    target: str
    mode: str
    since: datetime
    recovery_id: str
    available: tuple[str, ...]
    unavailable: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "mode": self.mode,
            "since": self.since.isoformat(timespec="seconds"),
            "recovery_id": self.recovery_id,
            "available_capabilities": list(self.available),
            "unavailable_capabilities": list(self.unavailable),
        }


def active(control: ControlPlane, policy: Policy) -> tuple[DegradedMode, ...]:
    """Every degraded mode now; raises ``ControlPlaneUnavailable``."""
    with reachable():
        stored = control.redis.hgetall(control.key("degraded"))
    found = []
    for target, text in sorted(stored.items()):
        held = json.loads(text)
        declared = policy.degraded_modes.get(held["mode"])
        found.append(
            DegradedMode(
                target=target,
                mode=held["mode"],
                since=datetime.fromtimestamp(held["since"] / 1000, UTC),
                recovery_id=held["recovery_id"],
                available=declared.available_capabilities if declared else (),
                unavailable=declared.unavailable_capabilities if declared else (),
            )
        )
    return tuple(found)


def may_use(control: ControlPlane, policy: Policy, capability: str) -> bool:
    """False while any active degraded mode lists the capability as unavailable."""
    return all(capability not in mode.unavailable for mode in active(control, policy))


def changes(control: ControlPlane) -> Iterator[dict[str, Any]]:
    """Yield ``{target, mode, active}`` for each change from now on; blocks between them."""
    with control.redis.pubsub(ignore_subscribe_messages=True) as subscription:
        with reachable():
            subscription.subscribe(control.key("degraded"))
        while True:
            with reachable():
                message = subscription.get_message(timeout=1.0)
            if message is not None:
                yield json.loads(message["data"])

"""What still works while a component does not: one question for applications, and a subscription.

A degraded mode is set when a recovery of a target failed and cleared when a probe has proven the
target healthy; both happen in the script that concludes a recovery.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

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

    @classmethod
    def from_dict(cls, target: str, held: Mapping[str, Any]) -> Self:
        """As the control plane holds and publishes it; ``since`` is in milliseconds there."""
        return cls(
            target=target,
            mode=held["mode"],
            since=datetime.fromtimestamp(held["since"] / 1000, UTC),
            recovery_id=held["recovery_id"],
            available=tuple(held["available"]),
            unavailable=tuple(held["unavailable"]),
        )

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
    """Every degraded mode now, with the capabilities that held when it was set.

    Raises ``ControlPlaneUnavailable``.
    """
    with reachable():
        stored = control.redis.hgetall(control.key("degraded"))
    return read(policy, stored)


def read(policy: Policy, stored: Mapping[str, str]) -> tuple[DegradedMode, ...]:
    """Make sense of the hash of modes, a field a target."""
    return tuple(
        DegradedMode.from_dict(target, _declared(policy, json.loads(text)))
        for target, text in sorted(stored.items())
    )


def _declared(policy: Policy, held: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was stored before capabilities were stored along has those of the policy."""
    section = policy.degraded_modes.get(held["mode"])
    declared = {
        "available": section.available_capabilities if section else (),
        "unavailable": section.unavailable_capabilities if section else (),
    }
    return {**declared, **held}


def may_use(control: ControlPlane, policy: Policy, capability: str) -> bool:
    """False while any active degraded mode lists the capability as unavailable."""
    return all(capability not in mode.unavailable for mode in active(control, policy))


def changes(control: ControlPlane) -> Iterator[dict[str, Any]]:
    """Yield each change from now on; blocks between them.

    ``{target, mode, active}``, and where it is active ``since``, ``recovery_id``, ``available`` and
    ``unavailable`` as well.
    """
    with control.redis.pubsub(ignore_subscribe_messages=True) as subscription:
        with reachable():
            subscription.subscribe(control.key("degraded"))
        while True:
            with reachable():
                message = subscription.get_message(timeout=1.0)
            if message is not None:
                yield json.loads(message["data"])

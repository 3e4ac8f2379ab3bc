"""The degraded modes as the control plane holds them: one a target, set and cleared by conclusions.

A mode is set when a recovery of a target failed and cleared when a probe has proven the target
healthy; both happen in the script that concludes a recovery. Applications ask
``recovery.degraded``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from recovery.controlplane import reachable

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.controlplane import ControlPlane


@dataclass(frozen=True, slots=True, kw_only=True)
class DegradedMode:
    """A mode that a target is in, with what applications can and cannot do meanwhile.

    ``is_own``: this process found it out by itself and no recovery is known, so ``recovery_id`` is
    empty.
    """

    target: str
    mode: str
    since: datetime
    recovery_id: str
    available: tuple[str, ...]
    unavailable: tuple[str, ...]
    is_own: bool = False

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


class Capabilities(NamedTuple):
    """What a mode leaves, and what it takes."""

    available: tuple[str, ...]
    unavailable: tuple[str, ...]


SHIPPED: Mapping[str, Capabilities] = {
    "chromadb_unavailable": Capabilities(
        ("basic_conversation", "redis_memory", "simple_qa", "direct_api_calls"),
        ("semantic_search", "personality_injection", "long_term_memory"),
    ),
    "openwebui_unavailable": Capabilities(
        ("direct_api_calls", "single_model_inference", "basic_conversation"),
        ("multi_model_consensus", "openwebui_ui", "model_switching"),
    ),
    "redis_unavailable": Capabilities(
        ("basic_conversation", "in_memory_cache", "single_session"),
        ("semantic_search", "long_term_memory", "multi_session_state", "persistent_storage"),
    ),
}
"""The modes of the shipped policy, for an application that has not heard any other."""


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

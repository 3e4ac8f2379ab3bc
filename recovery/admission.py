"""The gate: one atomic script says whether a recovery may start now, and remembers that it did.

The sliding window, cooldown, lease, probation, disabled scopes and known ids are all kept per
target in the control Redis, by that Redis's clock. A refusal is a value with a reason.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from recovery.events import Decision, FailureEvent, Refusal, Source, TargetRef, Verdict

if TYPE_CHECKING:
    from recovery.config import Limits, Policy
    from recovery.controlplane import ControlPlane

RESEND_SECONDS = 4.0
"""How long an admitted recovery waits in its queue before its message is sent again."""

RECORD_TTL_SECONDS = 7 * 24 * 3600
"""How long a concluded recovery's full record can be looked up; the audit keeps its entry."""


BELIEVED_SECONDS = 60.0
"""How long a target counts as failing after a word of a detector that is none of our probes."""

_OTHER_DETECTORS = (Source.ALERTMANAGER, Source.API)
_PLAIN = json.JSONEncoder(separators=(",", ":"))
_KNOWN: WeakKeyDictionary[Policy, dict[tuple[TargetRef, bool], str]] = WeakKeyDictionary()


class Mode(StrEnum):
    ADMIT = "admit"
    HOLD = "hold"
    RESUME = "resume"
    UNDO = "undo"
    REHEARSE = "rehearse"


class StaleLease(StrEnum):
    """Answer of the gate that is no decision: a dead worker's lease must be settled first."""

    STALE = "stale"


def ask(
    control: ControlPlane,
    policy: Policy,
    event: FailureEvent,
    strategy: str,
    mode: Mode = Mode.ADMIT,
    *,
    force: bool = False,
) -> Decision | StaleLease:
    """Ask the gate about one event; raises ``ControlPlaneUnavailable``."""
    known = _known(policy, event.target, is_told=event.source in _OTHER_DETECTORS)
    answer = control.run(
        "admit",
        event.id,
        str(event.target),
        _PLAIN.encode(event.as_dict()),
        f"{mode.value} {int(force)} {strategy} {known}",
    )
    if answer == Verdict.ADMITTED:
        return Decision(recovery_id=event.id, verdict=Verdict.ADMITTED, strategy=strategy)
    verdict, reason, retry_after_ms, detail = answer
    if verdict == StaleLease.STALE:
        return StaleLease.STALE
    if verdict == Verdict.DUPLICATE:
        return Decision(
            recovery_id=event.id,
            verdict=Verdict.DUPLICATE,
            strategy=detail or strategy,
            detail=reason,
        )
    return Decision(
        recovery_id=event.id,
        verdict=Verdict(verdict),
        strategy=strategy,
        reason=Refusal(reason) if reason else None,
        detail=detail,
        retry_after=retry_after_ms / 1000 if retry_after_ms else None,
    )


def _known(policy: Policy, target: TargetRef, *, is_told: bool) -> str:
    """What the script needs of the policy; the same for every event of its kind."""
    known = _KNOWN.setdefault(policy, {})
    if (target, is_told) not in known:
        known[target, is_told] = (
            f"{_numbers(policy, policy.limits(target))} {_surroundings(policy, target, is_told)}"
        )
    return known[target, is_told]


def _numbers(policy: Policy, limits: Limits) -> str:
    """What the script needs of the policy, in the order in which it reads it."""
    return (
        f"{limits.max_attempts_per_hour} {limits.cooldown_seconds * 1000:.0f}"
        f" {limits.probation_seconds * 1000:.0f} {RESEND_SECONDS * 1000:.0f}"
        f" {limits.queue_wait_seconds * 1000:.0f} {policy.approvals.expires_after * 1000:.0f}"
        f" {RECORD_TTL_SECONDS} {policy.escalation.failures_for_level_3}"
        f" {int(policy.audit.enabled)}"
    )


def _surroundings(policy: Policy, target: TargetRef, is_told: bool) -> str:
    """What the rest of the stack says of the target: storm, foundations, and what it stands on."""
    roots = " ".join(map(str, policy.roots(target)))
    # Who is failing is asked by those that stand on it, and where many are a storm.
    counts = policy.storm_size > 0 or target in policy.foundations
    believed = BELIEVED_SECONDS if counts and is_told else 0
    return (
        f"{policy.storm_size} {policy.detection.storm.calm * 1000:.0f} {believed * 1000:.0f}"
        f" {int(target in policy.foundations)} {roots}"
    )

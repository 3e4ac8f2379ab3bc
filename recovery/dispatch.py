"""From an event to a decision: validate, select a rung, ask the gate. Sends and runs nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from recovery import holdings, reconcile, registry
from recovery.admission import Mode, StaleLease, ask
from recovery.errors import InvalidEvent, NotKept, UnknownRecovery
from recovery.events import (
    Assignment,
    Decision,
    FailureEvent,
    PastOutcome,
    Refusal,
    State,
    TargetRef,
    Verdict,
)
from recovery.finding import find_component
from recovery.messages import check_scope, read_event
from recovery.selection import ladder, select
from recovery.strategy import COMPONENTS, FailureType

if TYPE_CHECKING:
    from recovery.config import Policy, StrategyPolicy
    from recovery.controlplane import ControlPlane

_SETTLE_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class NoRemedy:
    """No strategy answers the event. ``needs_person``: nothing automatic ever will."""

    detail: str
    needs_person: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatched:
    """A decision, the event where it was valid, and the assignments that must be sent now."""

    decision: Decision
    event: FailureEvent | None = None
    assignments: tuple[Assignment, ...] = ()


def dispatch(
    control: ControlPlane, policy: Policy, recovery_id: str, message: Mapping[str, Any]
) -> Dispatched:
    """Decide about one message; raises ``ControlPlaneUnavailable`` only."""
    try:
        event = read_event(recovery_id, message, policy)
        if event.undo_of is not None:
            return _undo(control, policy, event)
        _check_host(control, policy, event)
        strategy = _choose(control, policy, event)
        if isinstance(strategy, NoRemedy):
            return Dispatched(
                decision=_reject_unserved(control, policy, event, strategy), event=event
            )
        check_scope(event, policy, strategy.name)
    except InvalidEvent as error:
        return Dispatched(decision=_reject_invalid(control, policy, recovery_id, message, error))
    mode = _mode(policy, event, strategy)
    return admit(control, policy, event, strategy.name, mode, force=event.force)


def admit(
    control: ControlPlane,
    policy: Policy,
    event: FailureEvent,
    strategy: str,
    mode: Mode,
    *,
    force: bool,
) -> Dispatched:
    """Ask the gate, settling a dead worker's lease first where one stands in the way."""
    followed: list[Assignment] = []
    for _ in range(_SETTLE_ROUNDS):
        answer = ask(control, policy, event, strategy, mode, force=force)
        if not isinstance(answer, StaleLease):
            break
        followed += reconcile.settle(control, policy, event.target)
    else:
        answer = Decision(
            recovery_id=event.id,
            verdict=Verdict.REFUSED,
            strategy=strategy,
            reason=Refusal.BUSY,
            detail="a dead worker's recovery is being settled",
            retry_after=1.0,
        )
    if answer.admitted or _was_never_sent(answer):
        followed.append(
            Assignment(
                recovery_id=event.id,
                target=event.target,
                strategy=answer.strategy or strategy,
                host=event.host,
            )
        )
    return Dispatched(decision=answer, event=event, assignments=tuple(followed))


def _check_host(control: ControlPlane, policy: Policy, event: FailureEvent) -> None:
    """A target that is "this host" is the wrong one as soon as there are several.

    Raises ``InvalidEvent``: whichever dispatcher took the event would repair its own host.
    """
    if not policy.is_here_by_default(event.target):
        return
    hosts = registry.hosts_of(event.target.component, registry.workers(control))
    if len(hosts) > 1:
        raise InvalidEvent(
            f"{event.target} could be any of {', '.join(hosts)}: give each host its own target",
            {"field": "target", "allowed": list(hosts)},
        )


def _was_never_sent(answer: Decision) -> bool:
    """A known id still in its queue: whoever admitted it may have died before sending."""
    return answer.verdict is Verdict.DUPLICATE and answer.detail == State.QUEUED


def _undo(control: ControlPlane, policy: Policy, event: FailureEvent) -> Dispatched:
    """An undo has its original's strategy and host; raises ``InvalidEvent``."""
    try:
        kept = holdings.find(control, event.undo_of or "")
    except (UnknownRecovery, NotKept) as error:
        decision = _reject(control, policy, event, Refusal.NOT_KEPT, error.message)
        return Dispatched(decision=decision, event=event)
    if kept.target != str(event.target):
        raise InvalidEvent(
            f"recovery {kept.recovery_id} was one of {kept.target}, not of {event.target}",
            {"field": "target", "value": str(event.target)},
        )
    strategy = policy.strategy(event.target.component, kept.strategy)
    known = replace(event, undo_of=kept.recovery_id, strategy=kept.strategy, host=kept.host)
    mode = Mode.REHEARSE if event.dry_run else Mode.UNDO
    return admit(control, policy, known, strategy.name, mode, force=True)


def _mode(policy: Policy, event: FailureEvent, strategy: StrategyPolicy) -> Mode:
    if event.dry_run:
        return Mode.REHEARSE
    if event.require_approval:
        return Mode.HOLD
    if strategy.name in policy.target(event.target).unattended:
        return Mode.ADMIT
    unasked = event.source.is_automatic and not strategy.auto_trigger
    return Mode.HOLD if strategy.requires_approval or unasked else Mode.ADMIT


def _choose(
    control: ControlPlane, policy: Policy, event: FailureEvent
) -> StrategyPolicy | NoRemedy:
    if event.strategy is not None:
        asked_for = policy.strategy(event.target.component, event.strategy)
        if asked_for.obstacle is not None:
            return NoRemedy(detail=asked_for.obstacle, needs_person=False)
        return asked_for
    failure = _failure_type(event)
    rungs = ladder(policy.component(event.target.component).strategies, failure)
    if not rungs:
        needs_person = failure.needs_person or failure.remediable
        return NoRemedy(
            detail=f"no remedy for {failure.name}: {failure.summary}", needs_person=needs_person
        )
    now_ms, past = recent_outcomes(control, event.target)
    return select(
        rungs,
        failure.name,
        past,
        now_ms=now_ms,
        effective_seconds=policy.limits(event.target).effective_seconds,
    )


def recent_outcomes(
    control: ControlPlane, target: TargetRef
) -> tuple[int, tuple[PastOutcome, ...]]:
    """The control plane's time in milliseconds, and a target's outcomes, newest first."""
    now_ms, *stored = control.run("outcomes", str(target))
    return now_ms, tuple(PastOutcome.from_dict(json.loads(text)) for text in stored)


def _failure_type(event: FailureEvent) -> FailureType:
    name = event.failure_type or ""
    declared = find_component(event.target.component).failure_type(name)
    return declared or FailureType(name=name, summary="named by the policy alone")


def _reject_invalid(
    control: ControlPlane,
    policy: Policy,
    recovery_id: str,
    message: Mapping[str, Any],
    error: InvalidEvent,
) -> Decision:
    component = str(message.get("component", ""))
    known = component if component in COMPONENTS else "unknown"
    control.run(
        "reject",
        recovery_id,
        "invalid",
        known,
        "",
        Refusal.INVALID,
        error.message,
        0,
        int(policy.audit.enabled),
    )
    return Decision(
        recovery_id=recovery_id,
        verdict=Verdict.REFUSED,
        reason=Refusal.INVALID,
        detail=error.message,
    )


def _reject_unserved(
    control: ControlPlane, policy: Policy, event: FailureEvent, none: NoRemedy
) -> Decision:
    reason, needs_person = Refusal.NO_REMEDY, none.needs_person
    return _reject(control, policy, event, reason, none.detail, needs_person=needs_person)


def _reject(
    control: ControlPlane,
    policy: Policy,
    event: FailureEvent,
    reason: Refusal,
    detail: str,
    *,
    needs_person: bool = False,
) -> Decision:
    target = event.target
    control.run(
        "reject",
        event.id,
        str(target),
        target.component,
        event.strategy or "",
        reason,
        detail,
        int(needs_person),
        int(policy.audit.enabled),
    )
    return Decision(recovery_id=event.id, verdict=Verdict.REFUSED, reason=reason, detail=detail)

"""The JSON API, version 1: what is known, and what may be asked for."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from recovery import approvals, audit, disabling, evidence, holdings, producer, records, registry
from recovery.errors import InvalidEvent
from recovery.events import Source, TargetRef
from recovery.http import answers, models
from recovery.http.context import Context, caller_of, context_of
from recovery.http.standing import Standing, standings
from recovery.messages import check_scope, read_event

router = APIRouter(
    prefix="/api/v1",
    tags=["v1"],
    responses={code: {"model": models.Failed} for code in (401, 422, 503)},
)

_OF_STATE = (
    "target",
    "level",
    "attempts_left",
    "attempts_in_hour",
    "max_attempts_per_hour",
    "cooldown_seconds",
    "on_probation",
    "recovery_id",
    "phase",
    "holder",
    "doing",
    "percent",
    "last_result",
    "last_strategy",
)

In = Annotated[Context, Depends(context_of)]


@router.get("/status", response_model=models.Status)
def status(context: In) -> Response:
    """Totals, targets, approvals, degraded modes and disabled scopes, all of one moment."""
    now = context.measured()
    return answers.rendered(
        models.Status.model_construct(
            recoveries=now.counted.recovered + now.counted.failed,
            recovered=now.counted.recovered,
            failed=now.counted.failed,
            refused=sum(now.counted.refused.values()),
            success_rate=now.counted.success_rate,
            targets=tuple(_target(context, one) for one in standings(now)),
            degraded_modes=tuple(models.DegradedMode(**mode.as_dict()) for mode in now.degraded),
            pending_approvals=_pending(context),
            disabled=tuple(models.Disabled.model_validate(scope) for scope in now.disabled),
        )
    )


@router.get("/targets", response_model=models.Targets)
def targets(
    context: In,
    component: str | None = None,
    state: Annotated[str | None, Query(description="as in a target's `state`")] = None,
) -> Response:
    """Every target of the policy, in its order."""
    found = (
        one
        for one in standings(context.measured())
        if component in (None, one.ref.component) and state in (None, one.word)
    )
    shown = tuple(_target(context, one) for one in found)
    return answers.rendered(models.Targets.model_construct(targets=shown))


@router.get("/targets/{component}/{name}")
def target(context: In, component: str, name: str) -> models.Target:
    """One target; an unknown one is said with those there are."""
    ref = TargetRef(component, name)
    context.policy.target(ref)
    found = next(one for one in standings(context.measured()) if one.ref == ref)
    return _target(context, found)


@router.get("/workers")
def workers(context: In) -> models.Workers:
    """Workers of all hosts, the queues, and those that nobody consumes."""
    now = context.measured()
    nobodys = registry.unconsumed(registry.queues_of(context.policy), now.workers)
    return models.Workers(
        workers=tuple(models.Worker(**seen.as_dict()) for seen in now.workers),
        queues=tuple(models.Queue.model_validate(queue) for queue in now.queues),
        unconsumed_queues=nobodys,
    )


@router.get("/recoveries", response_model=models.Recoveries)
def recoveries(  # noqa: PLR0917 - FastAPI passes by name
    context: In,
    component: str | None = None,
    target: Annotated[str | None, Query(description="as `redis/cache`")] = None,
    result: str | None = None,
    since: datetime | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """The audit trail, newest first. Sealed days are there where this host keeps them."""
    wanted = audit.Wanted(component=component, target=target, result=result, since=since)
    folder = audit.folder_of(context.policy, context.environment)
    page = audit.page(context.control, wanted, count=limit, cursor=cursor, folder=folder)
    shown = tuple(entry.as_dict() for entry in page.entries)
    return answers.rendered(models.Recoveries.model_construct(recoveries=shown, next=page.cursor))


@router.get("/recoveries/{recovery_id}", responses={404: {"model": models.Failed}})
def recovery(context: In, recovery_id: str) -> models.Recovery:
    """One recovery whole: its event, steps, figures and evidence. Kept for a week."""
    record = records.load(context.control, recovery_id)
    steps = records.steps(context.control, recovery_id)
    return models.Recovery(
        id=record.id,
        target=str(record.target),
        strategy=record.strategy,
        state=record.state.value,
        level=record.level,
        attempts=record.attempts,
        holder=record.holder,
        event=record.event.as_dict(),
        decision=record.decision,
        decided_by=record.decided_by,
        decided_why=record.decided_why,
        received_ms=record.received_ms,
        started_ms=record.started_ms,
        concluded_ms=record.concluded_ms,
        before=record.before.as_dict() if record.before else None,
        outcome=record.outcome.as_dict() if record.outcome else None,
        steps=tuple(step.as_dict() for step in steps),
        evidence=evidence.read(context.control, recovery_id),
    )


@router.post("/recoveries", status_code=202)
def trigger(request: Request, context: In, asked: models.Trigger) -> models.Accepted:
    """Ask for a recovery. It passes the same gate as every other; nothing here defines a remedy."""
    said = asked.model_dump(exclude_defaults=True)
    if by := caller_of(request).name or asked.by:
        said["by"] = by
    event = read_event("api", {**said, "source": Source.API.value}, context.policy)
    if event.strategy:
        check_scope(event, context.policy, event.strategy)
    return _accepted(producer.trigger(**said, source=Source.API, app=context.app))


@router.get("/approvals")
def waiting(context: In) -> models.Approvals:
    """Recoveries that wait for a person, oldest first."""
    return models.Approvals(approvals=_pending(context))


@router.post("/approvals/{recovery_id}/approve", responses={409: {"model": models.Failed}})
def approve(
    request: Request, context: In, recovery_id: str, said: models.Decision
) -> models.Decided:
    """Let a waiting recovery run. The first word counts; whose it was stands in the audit trail."""
    by = _name(request, said.by)
    approvals.approve(
        context.control, context.policy, recovery_id, by=by, reason=said.reason, force=said.force
    )
    producer.follow_approval(recovery_id, context.app)
    return models.Decided(id=recovery_id, decision=approvals.APPROVED, by=by)


@router.post("/approvals/{recovery_id}/deny", responses={409: {"model": models.Failed}})
def deny(request: Request, context: In, recovery_id: str, said: models.Decision) -> models.Decided:
    """End a waiting recovery without running it."""
    by = _name(request, said.by)
    approvals.deny(context.control, context.policy, recovery_id, by=by, reason=said.reason)
    return models.Decided(id=recovery_id, decision=approvals.DENIED, by=by)


@router.get("/degraded-modes")
def degraded_modes(context: In) -> models.DegradedModes:
    """What does not work now, and what still does."""
    found = context.measured().degraded
    return models.DegradedModes(
        degraded_modes=tuple(models.DegradedMode(**mode.as_dict()) for mode in found)
    )


@router.get("/disabled")
def disabled(context: In) -> models.DisabledScopes:
    """Where automatic recovery is switched off."""
    found = disabling.disabled(context.control, context.policy)
    return models.DisabledScopes(
        disabled=tuple(models.Disabled.model_validate(scope) for scope in found)
    )


@router.post("/disable")
def disable(request: Request, context: In, said: models.Disable) -> models.Disabled:
    """Refuse recoveries of a scope for a while; what already runs is finished."""
    scope = disabling.scope_of(context.policy, said.component, said.target)
    by = _name(request, said.by)
    disabling.disable(
        context.control,
        context.policy,
        scope,
        by=by,
        reason=said.reason,
        seconds=said.duration,
    )
    return models.Disabled(scope=scope, by=by, reason=said.reason, seconds_left=said.duration)


@router.post("/enable")
def enable(request: Request, context: In, said: models.Enable) -> models.Enabled:
    """Take recoveries of a scope up again."""
    scope = disabling.scope_of(context.policy, said.component, said.target)
    by = _name(request, said.by)
    was_disabled = disabling.enable(
        context.control, context.policy, scope, by=by, reason=said.reason
    )
    return models.Enabled(scope=scope, was_disabled=was_disabled)


@router.get("/undo")
def kept(context: In) -> models.KeptList:
    """What remedies removed and hosts keep, oldest first."""
    found = holdings.held(context.control)
    return models.KeptList(
        kept=tuple(
            models.Kept(**asdict(entry), can_be_undone=holdings.can_be_undone(entry))
            for entry in found
        )
    )


@router.post("/undo/{recovery_id}", status_code=202, responses={404: {"model": models.Failed}})
def undo(request: Request, context: In, recovery_id: str, said: models.Undo) -> models.Accepted:
    """Ask for what a recovery removed to be brought back."""
    found = holdings.find(context.control, recovery_id)
    return _accepted(
        producer.undo(
            found,
            source=Source.API,
            by=_name(request, said.by),
            reason=said.reason,
            overwrite=said.overwrite,
            dry_run=said.dry_run,
            app=context.app,
        )
    )


def _accepted(identity: str) -> models.Accepted:
    return models.Accepted(id=identity, url=f"{router.prefix}/recoveries/{identity}")


def _name(request: Request, said: str | None) -> str:
    """Whoever is signed in has one name; everybody else has to give one."""
    name = caller_of(request).name or said
    if not name:
        raise InvalidEvent("say who you are, for the audit trail", {"field": "by"})
    return name


def _pending(context: Context) -> tuple[models.Approval, ...]:
    found = approvals.pending(context.control)
    return tuple(models.Approval(**approval.as_dict()) for approval in found)


def _target(context: Context, one: Standing) -> models.Target:
    """Without validation: it is ours, and there may be hundreds."""
    state, seen = one.state, one.state.seen
    probe = {name: getattr(seen, name) for name in models.Probe.model_fields} if seen else None
    own = {name: getattr(state, name) for name in _OF_STATE}
    return models.Target.model_construct(
        **own,
        component=one.ref.component,
        name=one.ref.name,
        state=one.word.value,
        degraded_mode=one.mode.mode if one.mode else None,
        unavailable_capabilities=one.mode.unavailable if one.mode else (),
        disabled_by=one.disabled.by if one.disabled else None,
        host=context.policy.target(one.ref).host,
        probe=models.Probe.model_construct(**probe) if probe else None,
    )

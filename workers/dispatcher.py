"""Queue ``dispatch``: every event passes here on its way to a strategy's queue."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import structlog
from celery import Task

from recovery import approvals, dispatch, producer, registry
from recovery.errors import ControlPlaneUnavailable
from recovery.events import Decision, Verdict
from workers import context
from workers.app import app

log = structlog.get_logger()

_AWAY: dict[str, Any] = {
    # A restarting Redis is back in seconds; until then the event stays in this message.
    "autoretry_for": (ControlPlaneUnavailable,),
    "max_retries": 8,
    "retry_backoff": 0.5,
    "retry_backoff_max": 10,
}


@app.task(bind=True, name=producer.RECOVER, **_AWAY)
def recover(self: Task[..., Any], *arguments: Any, **message: Any) -> dict[str, Any]:
    """Decide about one failure event and send its strategy's task."""
    if arguments:
        message["arguments"] = list(arguments)
    decided = dispatch.dispatch(context.control(), context.policy(), str(self.request.id), message)
    return _carry_out(decided).as_dict()


@app.task(name=producer.FOLLOW_APPROVAL, **_AWAY)
def follow_approval(recovery_id: str) -> dict[str, Any] | None:
    """Carry out what a person has decided about a waiting recovery."""
    decided = approvals.follow(context.control(), context.policy(), recovery_id)
    if decided is None:
        return None
    return _carry_out(decided).as_dict()


def _carry_out(decided: dispatch.Dispatched) -> Decision:
    """Send what follows, and only then see whether anybody is there to take it."""
    for assignment in decided.assignments:
        producer.assign(assignment, context.policy(), app)
    decision = decided.decision
    if decision.admitted and decided.event is not None:
        queue = context.policy().queue(decided.event.target)
        decision = replace(decision, detail=registry.complaint(context.control(), queue))
    _log(decision)
    return decision


def _log(decision: Decision) -> None:
    facts = {name: value for name, value in decision.as_dict().items() if value != ""}
    if decision.verdict is Verdict.REFUSED:
        # The audit trail and the counters have it; a storm must not fill the log.
        log.debug("refused", **facts)
    else:
        log.info("decided", **facts)

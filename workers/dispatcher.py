"""Queue ``dispatch``: every event passes here on its way to a strategy's queue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import structlog
from celery import Task
from celery.exceptions import Reject
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from recovery import approvals, dispatch, producer, registry
from recovery.errors import ControlPlaneUnavailable
from recovery.events import Decision, Verdict
from workers import context
from workers.app import app

T = TypeVar("T")

AWAY_SECONDS = 20.0
"""How long a dispatch waits for the control plane before its message goes back; less than the soft
time limit of such a task."""

_PATIENCE = Retrying(
    retry=retry_if_exception_type(ControlPlaneUnavailable),
    wait=wait_exponential(multiplier=0.1, max=1),
    stop=stop_after_delay(AWAY_SECONDS),
    reraise=True,
)

log = structlog.get_logger()


@app.task(bind=True, name=producer.RECOVER)
def recover(self: Task[..., Any], *arguments: Any, **message: Any) -> dict[str, Any]:
    """Decide about one failure event and send its strategy's task."""
    if arguments:
        message["arguments"] = list(arguments)
    identity = str(self.request.id)

    def decide() -> Decision:
        return _carry_out(dispatch.dispatch(context.control(), context.policy(), identity, message))

    return _insist(decide).as_dict()


@app.task(name=producer.FOLLOW_APPROVAL)
def follow_approval(recovery_id: str) -> dict[str, Any] | None:
    """Carry out what a person has decided about a waiting recovery."""

    def follow() -> Decision | None:
        decided = approvals.follow(context.control(), context.policy(), recovery_id)
        return None if decided is None else _carry_out(decided)

    decision = _insist(follow)
    return None if decision is None else decision.as_dict()


def _insist(action: Callable[[], T]) -> T:
    """Until the control plane is back; doing it twice is harmless, because the id is known by then.

    Celery's own retry would send a message for it, to a broker that is the same Redis: that fails
    too, and Celery then drops the event.
    """
    try:
        return _PATIENCE(action)
    except ControlPlaneUnavailable as error:
        raise Reject(error, requeue=True) from error


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

"""How a strategy becomes a Celery task: limits, retries and backoff from the policy."""

from __future__ import annotations

from typing import Any

import structlog
from billiard.exceptions import SoftTimeLimitExceeded
from celery import Task

from recovery import lifecycle, producer
from recovery.events import Assignment, TargetRef
from recovery.finding import find_strategy
from workers import context
from workers.app import app

DELIVER_ALERTS = "recovery.deliver_alerts"
NOTIFY_QUEUE = "notify"
PROGRESS = "PROGRESS"
"""The state of a task that says how far it is, as Celery's documentation names it."""

log = structlog.get_logger()


def strategy_task(component: str, strategy: str) -> Task[..., Any]:
    """The task of one strategy, with what the policy says of it as Celery's own settings."""
    declared = find_strategy(component, strategy)
    # A worker knows every task, whatever components its policy configures.
    block = context.policy().components.get(component)
    known = block.strategies if block else ()
    configured = next((found for found in known if found.name == strategy), None)
    timeout = configured.timeout_seconds if configured else declared.timeout_seconds
    soft, hard = producer.time_limits(timeout)

    def run(self: Task[..., Any], recovery_id: str, target: str) -> dict[str, Any]:
        return run_strategy(self, recovery_id, TargetRef.parse(target), strategy)

    run.__doc__ = declared.summary
    register: Any = app.task  # float limits are right and missing from the type stubs
    task: Task[..., Any] = register(
        run,
        bind=True,
        name=producer.task_name(component, strategy),
        # The lifecycle decides whether to retry; Celery's own count must not end it earlier.
        max_retries=None,
        default_retry_delay=configured.backoff_seconds if configured else declared.backoff_seconds,
        soft_time_limit=soft,
        time_limit=hard,
    )
    return task


def run_strategy(
    task: Task[..., Any], recovery_id: str, target: TargetRef, strategy: str
) -> dict[str, Any]:
    """Run one attempt, and have Celery run the next one where the lifecycle asks for it."""
    assignment = Assignment(recovery_id=recovery_id, target=target, strategy=strategy)
    ending = lifecycle.run(
        context.control(),
        context.policy(),
        assignment,
        context.holder(),
        stopped_by=(SoftTimeLimitExceeded,),
        told=lambda text, percent: _show(task, text, percent),
    )
    if isinstance(ending, lifecycle.RetryLater):
        queue = producer.queue_of(context.policy(), target, ending.host)
        raise task.retry(exc=ending.error, countdown=ending.countdown, queue=queue)
    if isinstance(ending, lifecycle.Skipped):
        return {"result": "skipped", "reason": ending.reason}
    nudge_notify()
    return {"result": ending.result.value, "error": ending.error, "seconds": ending.duration}


def _show(task: Task[..., Any], text: str, percent: int) -> None:
    """Have whoever holds the task's result see how far it is; never in the way of the repair."""
    try:
        task.update_state(state=PROGRESS, meta={"doing": text, "percent": percent})
    except Exception:
        # Any result backend, and anything that can be wrong with it.
        log.exception("progress not shown")


def nudge_notify() -> None:
    """Have alerts delivered now; beat does it anyway, so a lost message only costs seconds."""
    app.send_task(DELIVER_ALERTS, queue=NOTIFY_QUEUE, ignore_result=True)

"""On the queue of each ChromaDB target: its snapshots, due or asked for."""

from __future__ import annotations

from typing import Any

import structlog

from recovery import producer, snapshots
from recovery.errors import RecoveryError
from recovery.events import TargetRef
from workers import context
from workers.app import app
from workers.task import nudge_notify

log = structlog.get_logger()


@app.task(name=producer.TAKE_SNAPSHOT)
def take_snapshot(target: str, method: Any = None, by: str | None = None) -> dict[str, Any]:
    """Take one that a person asked for; what went wrong is the answer, never an exception."""
    control, policy = context.control(), context.policy()
    try:
        ref = TargetRef.parse(target)
        return snapshots.take(control, policy, ref, method=method, by=by).as_dict()
    except RecoveryError as error:
        nudge_notify()
        return {"error": error.code, "message": error.message, "facts": error.facts}


@app.task(name=producer.SNAPSHOT_IF_DUE, ignore_result=True)
def snapshot_if_due(target: str) -> str | None:
    """What beat asks for each minute; most of the time there is nothing to do."""
    control, policy = context.control(), context.policy()
    try:
        made = snapshots.take_if_due(control, policy, TargetRef.parse(target))
    except RecoveryError as error:
        log.warning("no snapshot", target=target, error=error.code, why=error.message)
        nudge_notify()
        return None
    return made.name if made else None

"""Queue ``maintenance``: what beat does so that nothing stays half done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from recovery import approvals, audit, holdings, producer, reconcile, rehearsals
from recovery.strategy import COMPONENTS
from workers import context, orphans
from workers.app import app
from workers.task import nudge_notify

SWEEP = "recovery.sweep_kept"
ANSWER_SECONDS = 1.0
"""How long workers may take to say which queues they consume."""

log = structlog.get_logger()


@app.task(name="recovery.reconcile", ignore_result=True)
def reconcile_leases() -> int:
    """Settle leases whose heartbeat stopped, and bring back events whose dispatcher died."""
    control, policy = context.control(), context.policy()
    settled = 0
    for target in reconcile.expired_leases(control):
        for assignment in reconcile.settle(control, policy, target):
            log.warning("sent again", recovery_id=assignment.recovery_id, target=str(target))
            producer.assign(assignment, policy, app)
        settled += 1
    settled += rehearsals.end_rehearsals(control, policy)
    if settled:
        # What was given up has an alert, which must not wait for the next tick.
        nudge_notify()
    orphans.restore(app, (producer.DISPATCH_QUEUE, "celery"))
    return settled


@app.task(name="recovery.follow_decisions", ignore_result=True)
def follow_decisions() -> int:
    """Carry out approvals that the gate would not let start before, and expire old ones."""
    control, policy = context.control(), context.policy()
    waiting = reconcile.decided(control)
    for record in waiting:
        decided = approvals.follow(control, policy, record.id)
        for assignment in decided.assignments if decided else ():
            producer.assign(assignment, policy, app)
    return len(waiting) + reconcile.expire_approvals(control, policy)


@app.task(name="recovery.close_refused_bursts", ignore_result=True)
def close_refused_bursts() -> int:
    """Write one audit line for each burst of refused events that is over."""
    return reconcile.close_refused_bursts(context.control(), context.policy())


@app.task(name="recovery.seal_audit", ignore_result=True)
def seal_audit() -> int:
    """Seal the closed days of the audit trail, or ask the host that has the files to do so."""
    policy, here = context.policy(), context.environment()
    folder = audit.folder_of(policy, here)
    report = audit.seal(context.control(), folder, policy.audit, here.host)
    if report.must_be_asked:
        seal_audit.apply_async(queue=producer.maintenance_queue(report.owner))
    elif report.more:
        seal_audit.apply_async(queue=producer.MAINTENANCE_QUEUE)
    return report.moved


@app.task(name="recovery.visit_hosts", ignore_result=True)
def visit_hosts() -> list[str]:
    """Have each host that has a worker tell what it keeps, and discard what has expired; and let go
    of the targets that nobody has any more."""
    reconcile.forget_departed(context.control(), context.policy())
    queues = host_queues(app.control.inspect(timeout=ANSWER_SECONDS).active_queues() or {})
    for queue in queues:
        app.send_task(SWEEP, queue=queue, ignore_result=True)
    return queues


@app.task(name=SWEEP, ignore_result=True)
def sweep_kept() -> int:
    """Run on the host whose queue it comes from."""
    return holdings.sweep(context.control(), context.policy(), context.environment())


def host_queues(consumed: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """One queue for each host, of those that workers say they consume."""
    found: dict[str, str] = {}
    for queues in consumed.values():
        for queue in queues:
            component, _, host = str(queue["name"]).partition(".")
            if component in COMPONENTS and host:
                found.setdefault(host, str(queue["name"]))
    return sorted(found.values())

"""Queues ``probe.*``: scheduled looks at targets, each where its targets can be seen.

Beat sends one message a round and queue; the looks of a round start when each is due, in threads,
because looking is waiting. What fails is told to the dispatcher.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache

import structlog
from celery.signals import worker_shutting_down

from recovery import probing, producer
from recovery.errors import ControlPlaneUnavailable
from recovery.events import Source, TargetRef
from recovery.messages import FIGURES
from recovery.observations import Follow
from recovery.probing import Finding, Look
from workers import context
from workers.app import app

THREADS = 64
"""Looks at once in one process: enough for many targets that don't answer, and nothing else."""

PATIENCE_SECONDS = 60.0
"""After how long a round ends without looks that hang."""

QUIET_SECONDS = 3600
"""How long a person is not told again that the same target cannot be probed."""

_ending = threading.Event()

log = structlog.get_logger()


@app.task(name=producer.PROBE, ignore_result=True)
def probe_due(queue: str) -> int:
    """Look at the targets of a queue that are due before its next round."""
    began = time.monotonic()
    looks = probing.claim(context.control(), context.policy(), queue)
    begun: list[Future[None]] = []
    for one in looks:
        _ending.wait(one.wait - (time.monotonic() - began))
        if _ending.is_set():
            break
        begun.append(_pool().submit(_look, one, began))
    wait(begun, timeout=PATIENCE_SECONDS)
    return len(begun)


@worker_shutting_down.connect
def stop_waiting(**_: object) -> None:
    """In a signal handler: looks are given up, because nothing depends on their end."""
    _ending.set()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="look")


def _look(one: Look, began: float) -> None:
    late = time.monotonic() - began - one.wait
    if late > one.every:
        log.warning("look left out: all threads wait", target=str(one.target), late=round(late, 1))
        return
    try:
        finding = probing.look(
            context.control(),
            context.policy(),
            one,
            pause=_ending.wait,
            is_over=_ending.is_set,
            suspected=look_below,
        )
        _follow(finding)
    except ControlPlaneUnavailable as away:
        log.warning("look without effect", target=str(one.target), error=away.message)
    except Exception:
        # In a thread nobody else would hear of it.
        log.exception("look failed", target=str(one.target))


def look_below(target: TargetRef) -> None:
    """Before a failure is believed: what the target stands on may be its cause."""
    look_now(context.policy().roots(target))


def look_now(targets: Iterable[TargetRef]) -> None:
    """Look at these targets without waiting for the schedule."""
    policy = context.policy()
    probed = [target for target in targets if policy.probing(target)]
    if not probed:
        return
    probing.hurry(context.control(), probed)
    for queue in {policy.probe_queue(target) for target in probed}:
        producer.probe_due(queue, app)


def _follow(finding: Finding) -> None:
    target, judged, report = finding.look.target, finding.judgement, finding.report
    if judged.follow is Follow.FAILED:
        log.warning("target fails", target=str(target), found=report.failure_type)
        if not _is_known(target, report.failure_type):
            _call_a_person(target, report.summary)
    if judged.event_id is not None:
        producer.trigger(
            target.component,
            report.failure_type,
            target=target.name,
            context={FIGURES: dict(report.figures)},
            source=Source.PROBE,
            recovery_id=judged.event_id,
            app=app,
        )
    if judged.follow is Follow.RECOVERED:
        log.warning("target is healthy again", target=str(target))
        look_now(context.policy().dependants(target))


def _is_known(target: TargetRef, failure_type: str | None) -> bool:
    return failure_type in context.policy().failure_types(target.component)


def _call_a_person(target: TargetRef, why: str) -> None:
    """No event can say that a probe itself does not work."""
    alert = {"kind": "not_probed", "target": str(target), "why": why}
    context.control().run("tell", json.dumps(alert), f"probe|{target}", QUIET_SECONDS)

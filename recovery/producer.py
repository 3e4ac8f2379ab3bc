"""Putting messages on the broker: events in, assignments on. The only place that sends.

A broker that is away, refusing or silent is a ``ControlPlaneUnavailable`` within two seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from recovery.errors import ControlPlaneUnavailable
from recovery.events import Assignment, Source, TargetRef
from recovery.messages import check_shape

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Queue

    from recovery.config import Policy
    from recovery.keeping import KeptEntry

RECOVER = "recovery.recover"
FOLLOW_APPROVAL = "recovery.follow_approval"
PULSE = "recovery.pulse"
TAKE_SNAPSHOT = "recovery.take_snapshot"
SNAPSHOT_IF_DUE = "recovery.snapshot_if_due"
PROBE = "recovery.probe"
DISPATCH_QUEUE = "dispatch"
MAINTENANCE_QUEUE = "maintenance"
PULSE_QUEUES = "pulse."
"""What the name of a worker's own queue begins with; its node name follows."""

SENT_MS = "recovery_sent_ms"
"""Header of a message by which the age of a queue is told; the sender's clock."""

ANSWER_SECONDS = 0.5
"""What a sender grants its broker for an answer. A silent one is waited for
three times: once in the pool, and twice while a new connection is tried."""


_loading = threading.Lock()


def trigger(
    component: str,
    failure_type: str | None = None,
    *,
    target: str | None = None,
    strategy: str | None = None,
    context: Mapping[str, Any] | None = None,
    source: Source = Source.API,
    correlation_id: str | None = None,
    by: str | None = None,
    reason: str | None = None,
    require_approval: bool = False,
    dry_run: bool = False,
    force: bool = False,
    recovery_id: str | None = None,
    app: Celery | None = None,
) -> str:
    """Ask for a recovery and return its id at once; ``recovery.records.follow`` follows it.

    The same ``recovery_id`` sent twice is one recovery. Raises ``InvalidEvent`` where the event
    has the wrong shape and ``ControlPlaneUnavailable`` where the broker does not take it.
    """
    said: dict[str, Any] = {
        "target": target,
        "failure_type": failure_type,
        "strategy": strategy,
        "context": dict(context or {}),
        "correlation_id": correlation_id,
        "by": by,
        "reason": reason,
        "require_approval": require_approval,
        "dry_run": dry_run,
        "force": force,
    }
    return _ask(component, said, source, recovery_id, app)


def undo(
    kept: KeptEntry,
    *,
    overwrite: bool = False,
    source: Source = Source.API,
    correlation_id: str | None = None,
    by: str | None = None,
    reason: str | None = None,
    dry_run: bool = False,
    recovery_id: str | None = None,
    app: Celery | None = None,
) -> str:
    """Ask for what a recovery removed to be brought back, and return the undo's own id at once.

    ``kept`` comes from ``recovery.holdings.find``. Raises like ``trigger``.
    """
    target = TargetRef.parse(kept.target)
    said: dict[str, Any] = {
        "target": target.name,
        "undo_of": kept.recovery_id,
        "overwrite": overwrite,
        "correlation_id": correlation_id,
        "by": by,
        "reason": reason,
        "dry_run": dry_run,
    }
    return _ask(target.component, said, source, recovery_id, app)


def assign(assignment: Assignment, policy: Policy, app: Celery) -> None:
    """Send an admitted recovery to the queue on which its strategy runs."""
    target = assignment.target
    strategy = policy.strategy(target.component, assignment.strategy)
    soft, hard = time_limits(strategy.timeout_seconds)
    _send(
        app,
        task_name(target.component, assignment.strategy),
        {"recovery_id": assignment.recovery_id, "target": str(target)},
        queue=queue_of(policy, target, assignment.host),
        task_id=None,
        soft_time_limit=soft,
        time_limit=hard,
    )


def follow_approval(recovery_id: str, app: Celery | None = None) -> None:
    """Have a dispatcher carry out what a person has decided."""
    message = {"recovery_id": recovery_id}
    _send(app or celery_app(), FOLLOW_APPROVAL, message, queue=DISPATCH_QUEUE, task_id=None)


def take_snapshot(
    policy: Policy,
    target: TargetRef,
    *,
    method: str | None = None,
    by: str | None = None,
    app: Celery | None = None,
) -> str:
    """Ask the host that has the directory for a snapshot; ``await_result`` has its answer."""
    identity = str(uuid4())
    _send(
        app or celery_app(),
        TAKE_SNAPSHOT,
        {"target": str(target), "method": method, "by": by},
        queue=policy.queue(target),
        task_id=identity,
        ignore_result=False,
        **snapshot_limits(policy, target),
    )
    return identity


def snapshot_limits(policy: Policy, target: TargetRef) -> dict[str, float]:
    """A snapshot keeps its own deadline; these stop one that does not."""
    found: Any = policy.target(target)
    soft, hard = time_limits(found.snapshots.timeout)
    return {"soft_time_limit": soft, "time_limit": hard}


def await_result(task_id: str, timeout: float, app: Celery | None = None) -> dict[str, Any] | None:
    """What a task answered; None where it did not in time."""
    from celery.exceptions import TimeoutError as TimedOut

    with _broker_reachable():
        try:
            answer: dict[str, Any] = (app or celery_app()).AsyncResult(task_id).get(timeout=timeout)
        except TimedOut:
            return None
    return answer


def probe_due(queue: str, app: Celery) -> None:
    """Have what is due on a queue of probes looked at now, without waiting for the schedule."""
    _send(app, PROBE, {"queue": queue}, queue=queue, task_id=None)


def send_pulse(node: str, app: Celery | None = None) -> None:
    """Put a pulse on a worker's own queue, in place of one that it has not taken.

    Raises ``ControlPlaneUnavailable``.
    """
    sender = app or celery_app()
    with _broker_reachable(), sender.connection_for_write() as connection:
        queue = pulse_queue(node)(connection.channel())
        queue.declare()
        queue.purge()
        sender.send_task(
            PULSE, queue=queue.name, connection=connection, ignore_result=True, retry=False
        )


def forget_pulses(node: str, app: Celery | None = None) -> None:
    """Take a worker's own queue off the broker; raises ``ControlPlaneUnavailable``."""
    sender = app or celery_app()
    with _broker_reachable(), sender.connection_for_write() as connection:
        queue = pulse_queue(node)(connection.channel())
        queue.declare()
        queue.delete()


def pulse_queue(node: str) -> Queue:
    from kombu import Exchange, Queue

    name = f"{PULSE_QUEUES}{node}"
    return Queue(name, Exchange(name, type="direct"), routing_key=name)


def maintenance_queue(host: str) -> str:
    """Where one host alone is told to look after what lies on its disk."""
    return f"{MAINTENANCE_QUEUE}.{host}"


def task_name(component: str, strategy: str) -> str:
    return f"recovery.{component}.{strategy}"


def queue_of(policy: Policy, target: TargetRef, bound_to: str | None = None) -> str:
    """The target's queue, or that of the one host that keeps what the recovery needs."""
    return f"{target.component}.{bound_to}" if bound_to else policy.queue(target)


def time_limits(timeout_seconds: float) -> tuple[float, float]:
    """Soft and hard limit of a strategy's task, in seconds.

    The remedy keeps its own deadline; the soft limit stops one that does not, and leaves time to
    prove and conclude; the hard one kills a pool process that even then does not end.
    """
    return timeout_seconds + 1.0, timeout_seconds + 30.0


def _ask(
    component: str,
    said: Mapping[str, Any],
    source: Source,
    recovery_id: str | None,
    app: Celery | None,
) -> str:
    message = {name: value for name, value in said.items() if value}
    message |= {"component": component, "source": Source(source).value}
    check_shape(message)
    identity = recovery_id or str(uuid4())
    _send(app or celery_app(), RECOVER, message, queue=DISPATCH_QUEUE, task_id=identity)
    return identity


@cache
def celery_app() -> Celery:
    """An application that can send and nothing else: no task is registered in it."""
    # Celery's modules import each other in circles, and it puts another module in its own place
    # meanwhile: two threads that are the first at once would each find half of it.
    with _loading:
        from celery.app.base import Celery

        app = Celery("recovery-producer", set_as_current=False)
        app.config_from_object("celeryconfig")
        app.conf.broker_transport_options = {
            **app.conf.broker_transport_options,
            "socket_connect_timeout": ANSWER_SECONDS,
            "socket_timeout": ANSWER_SECONDS,
        }
        _load_the_rest(app)
        return app


def _load_the_rest(app: Celery) -> None:
    """What Celery imports when it first sends."""
    app.amqp.queues  # noqa: B018 - imports by being asked for
    app.connection_for_write().transport  # noqa: B018


def sender(broker_url: str) -> Celery:
    """An application that can send to this broker, reads no policy, and keeps no connection.

    For a guest in somebody's process: kombu's pools and their limit are one for all of it, and
    stay as they are.
    """
    with _loading:
        from celery.app.base import Celery
        from kombu import pools

    class Sender(Celery):
        def send_task(self, *args: Any, **options: Any) -> Any:
            with self.connection_for_write() as connection:
                return super().send_task(*args, **{**options, "connection": connection})

    app = Sender("recovery-sender", broker=broker_url, set_as_current=False)
    app.conf.update(
        broker_pool_limit=pools.get_limit(),
        broker_connection_timeout=ANSWER_SECONDS,
        broker_transport_options={
            "socket_connect_timeout": ANSWER_SECONDS,
            "socket_timeout": ANSWER_SECONDS,
        },
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0, "interval_max": 0.1},
    )
    return app


def _send(
    app: Celery,
    name: str,
    message: Mapping[str, Any],
    *,
    queue: str,
    task_id: str | None,
    ignore_result: bool = True,
    **options: Any,
) -> None:
    with _broker_reachable():
        app.send_task(
            name,
            kwargs=dict(message),
            queue=queue,
            task_id=task_id,
            ignore_result=ignore_result,
            headers={SENT_MS: int(time.time() * 1000)},
            **options,
        )


@contextmanager
def _broker_reachable() -> Iterator[None]:
    from kombu.exceptions import OperationalError
    from redis.exceptions import RedisError

    try:
        yield
    except (OperationalError, RedisError, OSError) as error:
        raise ControlPlaneUnavailable(f"the broker cannot be reached: {error}") from error

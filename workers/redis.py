"""Queue ``redis`` and its host-bound ones: the remedies of Redis targets."""

from __future__ import annotations

import threading
import time
from typing import Any

import structlog
from celery.signals import worker_process_init

from recovery.components.redis.connection import hold, keep
from recovery.components.redis.target import RedisTarget
from workers import context
from workers.app import app
from workers.task import strategy_task

log = structlog.get_logger()

reconnect = strategy_task("redis", "reconnect")
restart_container = strategy_task("redis", "restart_container")
flush_corrupted = strategy_task("redis", "flush_corrupted")


KEEP_SECONDS = 5.0
"""How often a standing connection is looked after: a server that was restarted has closed it."""


@worker_process_init.connect
def hold_targets(**_: Any) -> None:
    """Get in while there is room: on a full server nobody could make any."""
    targets = _targets()
    log.info("targets held", **{name: hold(target) for name, target in targets.items()})
    threading.Thread(target=_keep, args=(targets,), name="standing", daemon=True).start()


def _targets() -> dict[str, RedisTarget]:
    """Those whose remedies this process may run."""
    policy = context.policy()
    found = {}
    for ref in policy.target_refs():
        target = policy.target(ref)
        queue = f"redis.{target.host}" if target.host else "redis"
        if isinstance(target, RedisTarget) and queue in app.amqp.queues.consume_from:
            found[str(ref)] = target
    return found


def _keep(targets: dict[str, RedisTarget]) -> None:
    while targets:
        time.sleep(KEEP_SECONDS)
        for target in targets.values():
            keep(target)

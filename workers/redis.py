"""Queue ``redis`` and its host-bound ones: the remedies of Redis targets."""

from __future__ import annotations

from typing import Any

import structlog
from celery.signals import worker_process_init

from recovery.components.redis.connection import hold
from recovery.components.redis.target import RedisTarget
from workers import context
from workers.app import app
from workers.task import strategy_task

log = structlog.get_logger()

reconnect = strategy_task("redis", "reconnect")
restart_container = strategy_task("redis", "restart_container")
flush_corrupted = strategy_task("redis", "flush_corrupted")


@worker_process_init.connect
def hold_targets(**_: Any) -> None:
    """Get in while there is room: on a full server nobody could make any."""
    policy = context.policy()
    held = {}
    for ref in policy.target_refs():
        target = policy.target(ref)
        queue = f"redis.{target.host}" if target.host else "redis"
        if isinstance(target, RedisTarget) and queue in app.amqp.queues.consume_from:
            held[str(ref)] = hold(target)
    log.info("targets held", **held)

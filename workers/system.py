"""Queue ``system`` and those of the hosts: the remedies of the host that a worker runs on."""

from __future__ import annotations

from typing import Any

import structlog
from celery.signals import worker_process_init

from recovery.components.system import collecting
from workers import context
from workers.task import strategy_task

log = structlog.get_logger()

disk_cleanup = strategy_task("system", "disk_cleanup")
memory_gc = strategy_task("system", "memory_gc")
file_handle_cleanup = strategy_task("system", "file_handle_cleanup")
process_restart = strategy_task("system", "process_restart")


@worker_process_init.connect
def offer_to_collect(**_: Any) -> None:
    """Let ``memory_gc`` of this host reach this process, whatever queue it works on."""
    try:
        collecting.offer(context.environment().state_dir)
    except OSError as error:
        log.warning("memory_gc will not reach this process", error=str(error))

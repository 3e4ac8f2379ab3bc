"""The Celery application: settings from ``celeryconfig``, tasks from this package."""

from __future__ import annotations

import gc
import sys
import warnings
from typing import Any

from celery import Celery
from celery.exceptions import SecurityWarning
from celery.signals import (
    setup_logging,
    worker_before_create_process,
    worker_init,
    worker_process_init,
)

from recovery import logs
from workers import transport

transport.install()

# Ten lines a worker; the supervisor says it in one, and which rights root has here.
warnings.filterwarnings("ignore", category=SecurityWarning)

app = Celery("recovery", amqp="workers.broker:EagerAMQP")
app.config_from_object("celeryconfig")


@setup_logging.connect
def configure_logging(loglevel: int | str | None = None, **_: Any) -> None:
    """Ours instead of Celery's, so that every line has the same shape and UTC times."""
    logs.configure(loglevel or "INFO")


@worker_init.connect
def stop_without_a_word(**_: Any) -> None:
    """Celery says in its signal handler that it stops, and only then does.

    Where nobody reads its output (`recovery up | head`) saying it raises, and it would go on.
    """
    sys.__stdout__ = None  # type: ignore[misc]


@worker_before_create_process.connect
def keep_memory_shared(**_: Any) -> None:
    """A pool process that collects garbage writes to all it inherited, and so copies it."""
    gc.collect()
    gc.freeze()


@worker_process_init.connect
def warm_up(**_: Any) -> None:
    """Read the policy and load the scripts before the first task, not in its way."""
    from workers import context

    context.policy()
    context.control()

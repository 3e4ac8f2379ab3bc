"""The workers' application with pool processes that take their time to prepare themselves."""

from __future__ import annotations

import os
import time
from typing import Any

from celery.signals import worker_process_init

from workers import context
from workers.app import app

__all__ = ["app"]


@worker_process_init.connect
def prepare(**_: Any) -> None:
    time.sleep(1.5)
    context.control().redis.rpush("prepared", str(os.getpid()))

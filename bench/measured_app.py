"""Our application with a stopwatch: three moments of each recovery are written down.

CLOCK_MONOTONIC is the same for all processes of a machine, so moments of several can be compared.
"""

from __future__ import annotations

import time
from typing import Any

from recovery.finding import find_strategy
from workers import context, task
from workers.app import app

__all__ = ["app"]

_run_strategy = task.run_strategy
_reconnect = find_strategy("redis", "reconnect")
_remedy = _reconnect.remedy
_moments: dict[str, float] = {}


def measured_run(self: Any, recovery_id: str, *args: Any) -> dict[str, Any]:
    _moments.clear()
    _moments["task"] = time.monotonic()
    try:
        return _run_strategy(self, recovery_id, *args)
    finally:
        _moments["concluded"] = time.monotonic()
        context.control().redis.rpush(
            f"bench:{recovery_id}",
            _moments["task"],
            _moments.get("remedy", 0.0),
            _moments["concluded"],
        )


def measured_remedy(*args: Any) -> None:
    _moments["remedy"] = time.monotonic()
    if _remedy is not None:
        _remedy(*args)


task.run_strategy = measured_run
object.__setattr__(_reconnect, "remedy", measured_remedy)

"""The workers' application with a trap door: it stops where a test wants to kill it.

``FAULT_AT`` names the place. The first process to reach it writes its pid to ``<prefix>fault:pid``
of the control Redis and waits there to be killed; everybody after it passes. Every finished act is
counted in ``<prefix>fault:acts``.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any

from recovery import dispatch, lease, lifecycle
from recovery.finding import find_strategy
from workers import context
from workers.app import app

__all__ = ["app"]

PLACE = os.environ.get("FAULT_AT", "")


def trap(place: str) -> None:
    control = context.control()
    if place == PLACE and control.redis.set(control.key("fault:pid"), os.getpid(), nx=True):
        time.sleep(60)


def before(place: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def trapped(*args: Any, **kwargs: Any) -> Any:
        trap(place)
        return function(*args, **kwargs)

    return trapped


dispatch.dispatch = before("dispatch", dispatch.dispatch)
lease.claim = before("claim", lease.claim)
lifecycle.conclude = before("conclude", lifecycle.conclude)


_found = find_strategy("redis", "reconnect")
assert _found.remedy is not None
_remedy = _found.remedy


def counted_remedy(*args: Any) -> None:
    trap("act")
    _remedy(*args)
    control = context.control()
    control.redis.incr(control.key("fault:acts"))
    trap("acted")


object.__setattr__(_found, "remedy", counted_remedy)
assert dataclasses.is_dataclass(_found)

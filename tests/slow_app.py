"""The workers' application with a remedy that takes its time before it begins."""

from __future__ import annotations

import os
import time
from typing import Any

from recovery.finding import find_strategy
from workers.app import app

__all__ = ["app"]

SECONDS = float(os.environ.get("SLOW_SECONDS", "1.5"))

_found = find_strategy("redis", "reconnect")
assert _found.remedy is not None
_remedy = _found.remedy


def slow_remedy(*args: Any) -> None:
    time.sleep(SECONDS)
    _remedy(*args)


object.__setattr__(_found, "remedy", slow_remedy)

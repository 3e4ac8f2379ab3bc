"""The workers' application with a remedy that writes down each of its runs.

``COUNT_FILE`` gets one line, the recovery's id, whenever the remedy begins; a file, because the
control Redis is what dies while this counts.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from recovery.finding import find_strategy
from workers.app import app

__all__ = ["app"]

# Long enough that some run at any moment.
SECONDS = 0.2

_found = find_strategy("redis", "reconnect")
assert _found.remedy is not None
_remedy = _found.remedy


def counted_remedy(target: Any, parameters: Any, journal: Any) -> None:
    with Path(os.environ["COUNT_FILE"]).open("a") as sink:
        sink.write(f"{journal.recovery_id}\n")
    time.sleep(SECONDS)
    _remedy(target, parameters, journal)


object.__setattr__(_found, "remedy", counted_remedy)

"""The workers' application with an ear to close: it cancels its consumer when told to.

``DEAF_FILE`` names a file. Once it exists, the worker takes it away and consumes nothing any more,
while its loop, its pool and its connection live on.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import bootsteps

from workers.app import app

__all__ = ["app"]

ORDER = Path(os.environ["DEAF_FILE"])


class Deafness(bootsteps.StartStopStep):
    def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
        hub.timer.call_repeatedly(0.1, go_deaf, (consumer,))


def go_deaf(consumer: Any) -> None:
    if ORDER.exists():
        ORDER.unlink()
        consumer.task_consumer.cancel()


app.steps["consumer"].add(Deafness)

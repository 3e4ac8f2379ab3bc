"""Connections to the broker that are tried again soon: a repairer must not wait half a minute."""

from __future__ import annotations

from typing import Any

import kombu
from celery.app.amqp import AMQP


class Connection(kombu.Connection):
    """Kombu's own steps are 2, 4, 6 … 30 s, and Celery has no setting for them."""

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        steps = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 2.0}
        return super().ensure_connection(*args, **{**steps, **options})


class EagerAMQP(AMQP):
    """Celery's own, with these connections."""

    Connection = Connection

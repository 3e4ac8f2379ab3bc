"""Queue ``notify``: alerts out, never in the way of a repair."""

from __future__ import annotations

from functools import cache

from recovery import alerts
from workers import context
from workers.app import app
from workers.task import DELIVER_ALERTS


@app.task(name=DELIVER_ALERTS, ignore_result=True)
def deliver_alerts() -> int:
    """Give each channel its turn with what waits in the outbox."""
    return alerts.deliver(context.control(), context.policy(), _channels())


@cache
def _channels() -> tuple[alerts.Channel, ...]:
    return alerts.channels_of(context.policy())

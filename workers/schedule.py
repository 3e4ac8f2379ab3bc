"""The schedule as beat runs it: Celery's own, except that ticks never pile up.

Celery's ``expires`` drops an overdue message when a worker takes it, by the clocks of two hosts. A
queue that nobody consumes would grow for ever, and a host whose clock is ahead would take nothing.
"""

from __future__ import annotations

from typing import Any

from celery.beat import ScheduleEntry, Scheduler
from kombu.exceptions import ChannelError

from recovery.config.policy import PROBE_QUEUES

MOST_WAITING = 10
"""On a queue that takes several kinds of ticks, or remedies too."""


class PatientScheduler(Scheduler):
    """Sends a tick only to a queue where few messages wait, a round of probes where none does."""

    def apply_async(self, entry: ScheduleEntry, *args: Any, **options: Any) -> Any:
        queue = self._queue(entry)
        most = 1 if queue.startswith(PROBE_QUEUES) else MOST_WAITING
        if waiting(self.producer.channel, queue) >= most:
            return None
        return super().apply_async(entry, *args, **options)

    def _queue(self, entry: ScheduleEntry) -> str:
        route = self.app.amqp.router.route(dict(entry.options or {}), str(entry.task))
        return str(getattr(route["queue"], "name", route["queue"]))


def waiting(channel: Any, queue: str) -> int:
    """How many messages wait on a queue."""
    try:
        answer = channel.queue_declare(queue, passive=True)
    except ChannelError:
        # A Redis list without items is no list.
        return 0
    return int(answer.message_count)

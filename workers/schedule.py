"""The schedule as beat runs it: Celery's own, except that ticks never pile up.

Celery's ``expires`` drops an overdue message when a worker takes it, by the clocks of two hosts. A
queue that nobody consumes would grow for ever, and a host whose clock is ahead would take nothing.
"""

from __future__ import annotations

from typing import Any

from celery.beat import ScheduleEntry, Scheduler
from kombu.exceptions import ChannelError

from recovery.config.policy import PROBE_QUEUES


class PatientScheduler(Scheduler):
    """Sends a round of probes only to a queue on which none waits."""

    def apply_async(self, entry: ScheduleEntry, *args: Any, **options: Any) -> Any:
        queue = str((entry.options or {}).get("queue", ""))
        if queue.startswith(PROBE_QUEUES) and self._waiting(queue):
            return None
        return super().apply_async(entry, *args, **options)

    def _waiting(self, queue: str) -> int:
        channel: Any = self.producer.channel
        try:
            answer = channel.queue_declare(queue, passive=True)
        except ChannelError:
            # A Redis list without items is no list.
            return 0
        return int(answer.message_count)

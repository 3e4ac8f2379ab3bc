"""Events that a killed dispatcher took from the broker and never decided: put back, in seconds.

Celery's Redis transport returns such a message only after the visibility timeout, an hour. An event
may be dispatched twice without harm, because its id is known by then, so it need not wait.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

import structlog
from celery import Celery
from kombu.utils.json import loads

ORPHAN_SECONDS = 5.0
"""A dispatch takes milliseconds; a message held for longer has lost its worker."""

_BATCH = 100

log = structlog.get_logger()


def restore(app: Celery, queues: Collection[str]) -> int:
    """Put back what was delivered from these queues and not acknowledged in time.

    Returns how many messages were put back; 0 where the broker is not Redis.
    """
    with app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        if connection.transport.driver_type != "redis":
            return 0
        restored = 0
        with channel.conn_or_acquire() as client:
            late = client.zrangebyscore(
                channel.unacked_index_key, 0, time.time() - ORPHAN_SECONDS, start=0, num=_BATCH
            )
            for tag in late:
                held = client.hget(channel.unacked_key, tag)
                if held is None or loads(_text(held))[2] not in queues:
                    continue
                channel.qos.restore_by_tag(_text(tag), client)
                log.warning("event put back", delivery_tag=_text(tag))
                restored += 1
        return restored


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value

"""The outbox as one channel sees it: a consumer group of its own on the stream of alerts.

What a channel has read and not acknowledged stays its own, however often it is killed. The stream
keeps the last ten thousand alerts; what a channel missed beyond them is counted, not held back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recovery.controlplane import reachable

if TYPE_CHECKING:
    from recovery.controlplane import ControlPlane

CONSUMER = "turn"
"""One consumer a channel: only who has its turn reads."""

NEW_CHANNEL_SECONDS = 3600.0
"""How old the alerts are with which a channel begins that was not there before."""


@dataclass(slots=True)
class Batch:
    """What a channel is to send next. ``lost``: gone from the stream before they were sent."""

    ids: list[str] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)
    lost: int = 0


class Outbox:
    """Raises ``ControlPlaneUnavailable`` everywhere."""

    def __init__(self, control: ControlPlane, channel: str) -> None:
        self._control = control
        self._stream = control.key("outbox")
        self._group = f"notify:{channel}"

    def next(self, count: int) -> Batch:
        """First what was read and not acknowledged, else what is new."""
        self._ensure_group()
        batch = self._unacknowledged(count)
        return batch if batch.ids or batch.lost else self._fresh(count)

    def acknowledge(self, ids: Iterable[str]) -> None:
        chosen = list(ids)
        if chosen:
            with reachable():
                self._control.redis.xack(self._stream, self._group, *chosen)

    def _unacknowledged(self, count: int) -> Batch:
        with reachable():
            read = self._control.redis.xreadgroup(
                self._group, CONSUMER, {self._stream: "0"}, count=count
            )
        batch, gone = Batch(), []
        for entry_id, stored in read[0][1] if read else ():
            if stored:
                _add(batch, entry_id, stored)
            else:
                gone.append(entry_id)
        self.acknowledge(gone)
        batch.lost = len(gone)
        return batch

    def _fresh(self, count: int) -> Batch:
        with reachable():
            read = self._control.redis.xreadgroup(
                self._group, CONSUMER, {self._stream: ">"}, count=count
            )
        batch = Batch()
        for entry_id, stored in read[0][1] if read else ():
            _add(batch, entry_id, stored)
        return batch

    def _ensure_group(self) -> None:
        from redis.exceptions import ResponseError

        begin = max(self._control.now_ms() - int(NEW_CHANNEL_SECONDS * 1000), 0)
        try:
            with reachable():
                self._control.redis.xgroup_create(
                    self._stream, self._group, id=f"{begin}-0", mkstream=True
                )
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise


def _add(batch: Batch, entry_id: str, stored: dict[str, str]) -> None:
    batch.ids.append(entry_id)
    batch.facts.append(json.loads(stored["alert"]))

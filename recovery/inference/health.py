"""How the roads fare, as this process sees it: which is left alone for a while, and who was told.

Touched by every caller without a lock: what two of them do at once is done twice, and harms nobody.
"""

from __future__ import annotations

import time

from recovery.inference.failures import Failure
from recovery.routes import Road

LONGEST_PAUSE = 30.0
TRIAL_SECONDS = 5.0
"""While one caller tries a road again, the others keep to the other for so long."""

BETWEEN_EVENTS = 30.0
SAME_AGAIN = 600.0
"""An outage is told once, and again only where it lasts."""

LONGEST_LOOK = 3.5
LOOK_AGAIN = 1.0


class Health:
    """Of one target."""

    def __init__(self) -> None:
        self._until: dict[Road, float] = {}
        self._pauses: dict[Road, tuple[float, float]] = {}
        self._told: dict[str, float] = {}
        self._last_told = -BETWEEN_EVENTS
        self._look_at: dict[Road, float] = {}
        self._dead_at: dict[Road, float] = {}

    def may_try(self, road: Road) -> bool:
        """Whether the road is not left alone now. Where its time is over, whoever asks tries it."""
        until = self._until.get(road)
        if until is None:
            return True
        now = time.monotonic()
        if now < until:
            return False
        self._until[road] = now + TRIAL_SECONDS
        return True

    def failed(self, failure: Failure) -> None:
        """Leave the road alone: as long as it asked for, else longer each time."""
        if not failure.avoid:
            return
        road, now = failure.road, time.monotonic()
        began, pause = self._pauses.get(road, (0.0, 0.0))
        # Requests that were on their way when the first one failed say nothing new.
        if now - began >= pause:
            began, pause = now, min(max(failure.avoid, 2 * pause), LONGEST_PAUSE)
            self._pauses[road] = (began, pause)
        self._until[road] = max(began + pause, now + (failure.retry_after or 0.0))

    def worked(self, road: Road) -> None:
        if road in self._until or road in self._pauses:
            self.forgive(road)
        if road is Road.OPENWEBUI and self._told:
            self._told.clear()

    def forgive(self, road: Road) -> None:
        self._until.pop(road, None)
        self._pauses.pop(road, None)

    def is_news(self, kind: str) -> bool:
        """Whether a failure of Open WebUI is to be told now."""
        now = time.monotonic()
        if now - self._last_told < BETWEEN_EVENTS:
            return False
        if now - self._told.get(kind, -SAME_AGAIN) < SAME_AGAIN:
            return False
        self._last_told = self._told[kind] = now
        return True

    def takes_a_look(self, road: Road) -> bool:
        """Whether the caller is the one that asks now whether anybody is there."""
        now = time.monotonic()
        if now < self._look_at.get(road, 0.0):
            return False
        self._look_at[road] = now + LONGEST_LOOK
        return True

    def looked(self, road: Road, *, alive: bool) -> None:
        now = time.monotonic()
        self._look_at[road] = now + LOOK_AGAIN
        if not alive:
            self._dead_at[road] = now

    def is_dead(self, road: Road, since: float) -> bool:
        """Whether somebody found the road dead after ``since``."""
        return self._dead_at.get(road, 0.0) > since

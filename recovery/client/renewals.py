"""Which pools belong to which target, and when each is to be renewed. Renews; never listens."""

from __future__ import annotations

import json
import logging
import random
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recovery.client.pools import Renewable

RENEW_POOL = "renew_pool"

log = logging.getLogger("recovery.client")


@dataclass(slots=True)
class _Protected:
    """One pool. ``due`` is a moment of the monotonic clock, where a renewal is planned."""

    target: str
    jitter: float
    renewable: Renewable
    due: float | None = None


class Renewals:
    """Pools are held weakly: one that its application has dropped is forgotten."""

    def __init__(self) -> None:
        self._pools: weakref.WeakKeyDictionary[Any, _Protected] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._heard: dict[str, str] | None = None

    def protect(self, client: Any, target: str, jitter: float) -> None:
        """Raises ``TypeError`` where the client has no pool that could be renewed."""
        from recovery.client.pools import pool_of, renewable

        pool = pool_of(client)
        with self._lock:
            held = self._pools.get(pool)
            made = held.renewable if held else renewable(pool)
            self._pools[pool] = _Protected(target=target, jitter=jitter, renewable=made)

    def hear(self, text: str) -> None:
        """Plan what a notice asks for; raises ``KeyError``, ``TypeError`` or ``ValueError`` where
        the text is none.

        A thousand clients hear it at once: each picks its own moment within its jitter.
        """
        notice = json.loads(text)
        target, wanted = notice["target"], notice["notice"]
        if self._heard is not None:
            self._heard[target] = text
        if wanted != RENEW_POOL:
            return
        for protected in self._all():
            if protected.target == target and protected.due is None:
                # Spreads load; nothing secret.
                wait = random.uniform(0, protected.jitter)  # noqa: S311
                protected.due = time.monotonic() + wait

    def missed(self, stored: Mapping[str, str]) -> list[str]:
        """Of the last notice for each target, those that were given while nobody listened.

        What was already there at the first look is no news.
        """
        before, self._heard = self._heard, dict(stored)
        if before is None:
            return []
        return [text for target, text in stored.items() if before.get(target) != text]

    def forget_notices(self) -> None:
        """What follows comes from another control plane, or to another process."""
        self._heard = None

    def seconds_left(self, most: float) -> float:
        """Seconds until the next renewal, at most ``most``."""
        due = [protected.due for protected in self._all() if protected.due is not None]
        return min(max(min(due) - time.monotonic(), 0.0), most) if due else most

    def renew_due(self) -> None:
        now = time.monotonic()
        for protected in self._all():
            if protected.due is not None and protected.due <= now:
                protected.due = None
                try:
                    protected.renewable.renew()
                except Exception:
                    # One pool that cannot be renewed must not keep the others from it.
                    log.exception("the connections of %s were not renewed", protected.target)
                else:
                    log.info("connections of %s renewed", protected.target)

    def by_target(self) -> dict[str, Renewable]:
        """One pool of each target."""
        return {protected.target: protected.renewable for protected in self._all()}

    def after_fork(self) -> None:
        """In the child: its pools have connections of their own, and locks may have been held."""
        self._lock = threading.Lock()
        self.forget_notices()
        for protected in self._all():
            protected.due = None
            protected.renewable.forget()

    def clear(self) -> None:
        for protected in self._all():
            protected.renewable.forget()
        self.forget_notices()
        with self._lock:
            self._pools.clear()

    def _all(self) -> list[_Protected]:
        with self._lock:
            return list(self._pools.values())

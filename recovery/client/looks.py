"""Whether the Redis servers of this application answer *it*: a fresh connection, and a PING.

Done where the control plane cannot tell: while it is away, and where the application has met a
failure itself. Never on a pool's own connections, so no caller waits for a look.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recovery.client.pools import Renewable

EVERY_SECONDS = 2.0

log = logging.getLogger("recovery.client")


class Looks:
    """Which targets are to be looked at, and when. ``suspect`` is called from any thread."""

    def __init__(self) -> None:
        self._suspected: set[str] = set()
        self._not_before = 0.0

    def suspect(self, target: str) -> None:
        if target not in self._suspected:
            self._suspected.add(target)
            self._not_before = 0.0

    def due(
        self, protected: Mapping[str, Renewable], *, everything: bool, doubted: frozenset[str]
    ) -> Iterator[tuple[str, bool]]:
        """Look at what needs it, at most every ``EVERY_SECONDS``: each target, whether it works."""
        if time.monotonic() < self._not_before:
            return
        wanted = set(protected) if everything else (self._suspected | doubted) & set(protected)
        self._suspected = set()
        self._not_before = time.monotonic() + EVERY_SECONDS
        for target in sorted(wanted):
            works = _answers(target, protected[target])
            if works is not None:
                yield target, works


def _answers(target: str, pool: Renewable) -> bool | None:
    try:
        return pool.answers()
    except Exception:
        # A pool of another kind than we know: nothing is known of its server then.
        log.debug("%s could not be looked at", target, exc_info=True)
        return None

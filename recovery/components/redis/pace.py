"""A bound on how much of a server's time we take: pauses in proportion to what our calls cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_SHORTEST_PAUSE = 0.001
_LONGEST_PAUSE = 0.25
_MOST_CREDIT = 0.02
"""Seconds of idleness that may be made up for: a long pause on our side must not end in a burst."""


class Pace:
    """``share``: the part of the time, above 0 and at most 1, that the server may work for us."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._busy = 0.0
        self._since = time.monotonic()

    def call(self, action: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Do something on the server, then pause for as long as is owed for it."""
        began = time.monotonic()
        try:
            return action(*args, **kwargs)
        finally:
            self._rest(time.monotonic() - began)

    def _rest(self, spent: float) -> None:
        self._busy += spent
        owed = self._busy / self._share - (time.monotonic() - self._since)
        if owed > _SHORTEST_PAUSE:
            time.sleep(min(owed, _LONGEST_PAUSE))
        elif owed < -_MOST_CREDIT:
            self._busy, self._since = 0.0, time.monotonic() - _MOST_CREDIT

"""How long something may still take, by this process's monotonic clock."""

from __future__ import annotations

import time

from recovery.errors import DeadlineExceeded


class Deadline:
    """Seconds left of a strategy's time, or of a part of it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._ends = time.monotonic() + seconds

    def remaining(self) -> float:
        """Raises ``DeadlineExceeded`` when nothing is left."""
        left = self.left()
        if left <= 0:
            raise DeadlineExceeded(f"the strategy's {self.seconds:g} s are over")
        return left

    def left(self) -> float:
        return self._ends - time.monotonic()

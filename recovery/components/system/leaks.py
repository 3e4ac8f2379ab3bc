"""Whether a process leaks: judged over a window, never by one reading. Pure.

The window has six slots of time. Each keeps the least that was read in it, its floor: what is
allocated and given back does not raise the floor, a leak does.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

SLOTS = 6
FEWEST_FLOORS = 4
LEAST_GROWTH = 32 * 1024 * 1024
"""Bytes; whatever grows by less is left alone."""

_NOISE = 0.98

Floor = tuple[int, int]
"""Number of the slot since boot, and bytes."""


def with_reading(floors: Sequence[Floor], now: float, size: int, window: float) -> list[Floor]:
    """The floors with one more reading of ``size`` bytes at ``now``, both times in seconds."""
    slot = int(now / (window / SLOTS))
    kept = [floor for floor in floors if slot - SLOTS < floor[0] < slot]
    here = [least for number, least in floors if number == slot]
    return [*kept, (slot, min([size, *here]))]


def growth(floors: Sequence[Floor], percent: float) -> int:
    """Bytes by which the floor rose through the whole window; 0 where it is no leak."""
    if len(floors) < FEWEST_FLOORS or floors[-1][0] - floors[0][0] < SLOTS - 1:
        return 0
    sizes = [least for _, least in floors]
    if any(later < earlier * _NOISE for earlier, later in pairwise(sizes)):
        return 0
    grown = sizes[-1] - sizes[0]
    return grown if grown >= max(sizes[0] * percent / 100, LEAST_GROWTH) else 0

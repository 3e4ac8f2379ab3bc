"""Figures as people read them. Knows no HTML but the path of a sparkline."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

WIDTH, HEIGHT = 84, 18
STEP = 3
POINTS = WIDTH // STEP + 1

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_FEW, _MANY = 10, 1000
"""Below the one a decimal tells something; from the other on a larger unit does."""


def duration(seconds: float | None) -> str:
    """``4 min 10 s``; two units at most."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _FEW:
        return f"{seconds:.1f} s"
    whole = math.ceil(seconds)
    for unit, size, below, small in (("d", _DAY, "h", _HOUR), ("h", _HOUR, "min", _MINUTE)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // small:02d} {below}"
    if whole >= _MINUTE:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02d} s"
    return f"{whole} s"


def milliseconds(value: float) -> str:
    """Three digits are enough: ``0.42 ms``, ``18 ms``, ``2.4 s``."""
    if value >= _MANY:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= _FEW else f"{value:.1f} ms"


def clock(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%H:%M:%S")


def day(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%d")


def words(name: object) -> str:
    """``connection_error`` → ``connection error``."""
    return str(name).replace("_", " ")


def figure(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < _MANY else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    return "–" if value is None else str(value)


def few(figures: Mapping[str, Any], most: int = 3) -> list[tuple[str, str]]:
    """The first figures that are numbers, for one line."""
    plain = [
        (words(name), figure(value))
        for name, value in figures.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return plain[:most]


def sparkline(latencies: Sequence[float]) -> str:
    """An SVG path, the newest on the right; the highest value touches the top."""
    shown = latencies[-POINTS:]
    if len(shown) < 2:  # noqa: PLR2004 - a line has two ends
        return ""
    top = max(*shown, 0.001)
    heights = [round(HEIGHT - 1 - (HEIGHT - 2) * value / top) for value in shown]
    first = WIDTH - STEP * (len(shown) - 1)
    moves = (f"{STEP} {after - before}" for before, after in pairwise(heights))
    return f"M{first} {heights[0]}l" + " ".join(moves).replace(" -", "-")


def marks(healthy: Sequence[bool]) -> str:
    """An SVG path with a stroke for each probe that failed."""
    shown = healthy[-POINTS:]
    first = WIDTH - STEP * (len(shown) - 1)
    return "".join(
        f"M{first + STEP * place} 0v{HEIGHT}" for place, well in enumerate(shown) if not well
    )


FILTERS: Mapping[str, Callable[..., Any]] = {
    "clock": clock,
    "day": day,
    "duration": duration,
    "few": few,
    "figure": figure,
    "milliseconds": milliseconds,
    "words": words,
}

"""The one JSON line with which every bench script ends, and the figures in it."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from typing import Any, NoReturn


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def summary(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    return {
        "p50": round(statistics.median(values), digits),
        "p95": round(percentile(values, 0.95), digits),
    }


def finish(
    name: str, *, n: int, unit: str, ours: Any, baseline: Any, ratio: Any, limit: Any, ok: bool
) -> NoReturn:
    """Print the line and exit with 1 where the limit is not held."""
    line = {
        "name": name,
        "n": n,
        "unit": unit,
        "ours": ours,
        "baseline": baseline,
        "ratio": ratio,
        "limit": limit,
        "ok": ok,
    }
    print(json.dumps(line))
    sys.exit(0 if ok else 1)

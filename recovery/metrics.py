"""Counters and durations of all recoveries, kept in the control Redis and read as one snapshot.

The script that concludes a recovery writes them in the same step as the audit entry, so they are
right across hosts, restarts and kills.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from recovery.conclusion import DURATION_BUCKETS
from recovery.controlplane import reachable
from recovery.events import Result

if TYPE_CHECKING:
    from recovery.controlplane import ControlPlane


@dataclass(slots=True)
class Spread:
    """Durations in seconds, by the upper bound of the bucket they fell into; not cumulative."""

    seconds: float = 0.0
    buckets: Counter[float] = field(default_factory=Counter)


@dataclass(slots=True, kw_only=True)
class StrategyFigures:
    """Counts of one strategy by result; durations in seconds; buckets are not cumulative."""

    component: str
    strategy: str
    results: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    buckets: Counter[float] = field(default_factory=Counter)

    @property
    def succeeded(self) -> int:
        """What was mended, and what people were led around with proof."""
        return self.results[Result.RECOVERED] + self.results[Result.REROUTED]

    @property
    def runs(self) -> int:
        return self.succeeded + self.results[Result.FAILED]

    @property
    def success_rate(self) -> float | None:
        return self.succeeded / self.runs if self.runs else None

    @property
    def average_seconds(self) -> float | None:
        return self.seconds / self.runs if self.runs else None

    def quantile_seconds(self, share: float) -> float | None:
        """Upper bound of the bucket in which that share of the runs ended; inf past the last."""
        wanted, seen = share * sum(self.buckets.values()), 0
        for bound in (*DURATION_BUCKETS, float("inf")):
            seen += self.buckets[float(bound)]
            if seen and seen >= wanted:
                return float(bound)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Every counter at one moment.

    ``probes``: looks by component, and healthy or failure type. By component as well:
    ``to_detect``: from the last look that found a target healthy until it counted as failing;
    ``to_recover``: from an event until its recovery ended; ``outages``: from the first look that
    found a target failing until it was healthy again, by a remedy or by itself.
    """

    strategies: tuple[StrategyFigures, ...]
    refused: Mapping[tuple[str, str], int]
    probes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    to_recover: Mapping[str, Spread] = field(default_factory=dict)
    to_detect: Mapping[str, Spread] = field(default_factory=dict)
    outages: Mapping[str, Spread] = field(default_factory=dict)

    @property
    def recovered(self) -> int:
        return sum(figures.results[Result.RECOVERED] for figures in self.strategies)

    @property
    def rerouted(self) -> int:
        return sum(figures.results[Result.REROUTED] for figures in self.strategies)

    @property
    def failed(self) -> int:
        return sum(figures.results[Result.FAILED] for figures in self.strategies)

    @property
    def success_rate(self) -> float | None:
        succeeded = self.recovered + self.rerouted
        runs = succeeded + self.failed
        return succeeded / runs if runs else None


def snapshot(control: ControlPlane) -> Snapshot:
    """Raises ``ControlPlaneUnavailable``."""
    with reachable():
        stored: Mapping[str, str] = control.redis.hgetall(control.key("counters"))
    return read(stored)


def read(stored: Mapping[str, str]) -> Snapshot:
    """Make sense of the counters' hash: its fields are words joined by ``|``."""
    by_strategy: dict[tuple[str, str], StrategyFigures] = {}
    counts: dict[str, dict[tuple[str, str], int]] = {"refused": {}, "probe": {}}
    times: dict[str, dict[str, Spread]] = {"recover": {}, "detect": {}, "outage": {}}
    for name, value in stored.items():
        kind, component, *more = name.split("|")
        if kind in counts:
            counts[kind][component, more[0]] = int(value)
        elif (span := kind.partition("_")[0]) in times:
            _add_time(times[span].setdefault(component, Spread()), kind, more, value)
        elif kind in ("attempts", "seconds", "bucket"):
            figures = by_strategy.setdefault(
                (component, more[0]), StrategyFigures(component=component, strategy=more[0])
            )
            _add(figures, kind, more[1:], value)
    ordered = tuple(by_strategy[name] for name in sorted(by_strategy))
    return Snapshot(
        strategies=ordered,
        refused=counts["refused"],
        probes=counts["probe"],
        to_recover=times["recover"],
        to_detect=times["detect"],
        outages=times["outage"],
    )


def _add(figures: StrategyFigures, kind: str, more: list[str], value: str) -> None:
    if kind == "attempts":
        figures.results[more[0]] = int(value)
    elif kind == "seconds":
        figures.seconds = float(value)
    else:
        figures.buckets[float(more[0])] = int(value)


def _add_time(spread: Spread, kind: str, more: list[str], value: str) -> None:
    if kind.endswith("_seconds"):
        spread.seconds = float(value)
    else:
        spread.buckets[float(more[0])] = int(value)

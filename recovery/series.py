"""The names, labels and values under which a measurement is published.

The one source of ``/metrics``, of the text file for node_exporter, and of ``recovery metrics``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal

from recovery.conclusion import DURATION_BUCKETS
from recovery.events import TargetRef
from recovery.observations import Observed
from recovery.strategy import COMPONENTS

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.measurement import Measurement
    from recovery.metrics import Snapshot, Spread

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]

BOUNDS = (*(float(bound) for bound in DURATION_BUCKETS), float("inf"))


@dataclass(frozen=True, slots=True)
class Histogram:
    """Cumulative counts by upper bound, and the sum of all values."""

    buckets: tuple[tuple[float, int], ...]
    total: float

    @property
    def count(self) -> int:
        return self.buckets[-1][1]


@dataclass(slots=True)
class Family:
    """One metric. ``values`` is for counters and gauges, ``histograms`` for the third kind."""

    name: str
    kind: Kind
    text: str
    labels: Labels = ()
    values: dict[Labels, float] = field(default_factory=dict)
    histograms: dict[Labels, Histogram] = field(default_factory=dict)

    def as_dicts(self) -> list[dict[str, Any]]:
        """Each series with its labels, as plain data."""
        named = [
            {"labels": dict(zip(self.labels, labels, strict=True)), "value": value}
            for labels, value in self.values.items()
        ]
        spread = [
            {
                "labels": dict(zip(self.labels, labels, strict=True)),
                "buckets": {f"{bound:g}": count for bound, count in one.buckets},
                "sum": one.total,
                "count": one.count,
            }
            for labels, one in self.histograms.items()
        ]
        return named + spread


def families(now: Measurement, policy: Policy) -> tuple[Family, ...]:
    """Every metric of one moment, in a fixed order."""
    return (
        _gauge("infra_recovery_control_plane_up", "Whether the control Redis answers.", {(): 1}),
        *_recoveries(now),
        *_targets(now),
        *_probes(now),
        *_modes(now, policy),
        *_queues(now),
        *_people(now),
        *_trail(now),
    )


def unreachable() -> tuple[Family, ...]:
    """All that can be said while the control Redis is away."""
    return (
        _gauge("infra_recovery_control_plane_up", "Whether the control Redis answers.", {(): 0}),
    )


def _recoveries(now: Measurement) -> Iterator[Family]:
    counted = now.counted
    yield Family(
        "infra_recovery_attempts_total",
        "counter",
        "Recoveries that ended, by how.",
        ("component", "strategy", "result"),
        {
            (figures.component, figures.strategy, str(result)): count
            for figures in counted.strategies
            for result, count in figures.results.items()
        },
    )
    yield Family(
        "infra_recovery_success_total",
        "counter",
        "Recoveries that a probe proved to have worked.",
        values={(): counted.recovered},
    )
    yield Family(
        "infra_recovery_duration_seconds",
        "histogram",
        "Time from a remedy's start to its end, by strategy.",
        ("component", "strategy"),
        histograms={
            (figures.component, figures.strategy): _histogram(figures.buckets, figures.seconds)
            for figures in counted.strategies
            if figures.runs
        },
    )
    yield from _spans(counted)
    yield Family(
        "infra_recovery_refused_total",
        "counter",
        "Events that did not become a recovery, by why.",
        ("component", "reason"),
        _floats(counted.refused),
    )


_SPANS = (
    (
        "time_to_recover",
        "Time from a failure event to the proof that it is repaired.",
        "to_recover",
    ),
    ("time_to_detect", "Time from a target's last healthy look until it failed.", "to_detect"),
    ("outage", "Time from a target's first failing look until it was healthy.", "outages"),
)


def _spans(counted: Snapshot) -> Iterator[Family]:
    for name, text, attribute in _SPANS:
        spreads: Mapping[str, Spread] = getattr(counted, attribute)
        yield Family(
            f"infra_recovery_{name}_seconds",
            "histogram",
            text,
            ("component",),
            histograms={
                (component,): _histogram(spread.buckets, spread.seconds)
                for component, spread in spreads.items()
            },
        )


def _targets(now: Measurement) -> Iterator[Family]:
    cooling = dict.fromkeys(_components(now), 0)
    for state in now.targets:
        if state.cooldown_seconds:
            cooling[TargetRef.parse(state.target).component] = 1
    yield _gauge(
        "infra_recovery_cooldown_active",
        "Whether a target of the component cools down.",
        {(component,): value for component, value in cooling.items()},
        "component",
    )
    yield _of_targets(
        "infra_recovery_cooldown_remaining_seconds",
        "How long a target still cools down.",
        {state.target: state.cooldown_seconds or 0 for state in now.targets},
    )
    yield _of_targets(
        "infra_recovery_target_level",
        "Escalation: 1 automatic, 2 cooling down, 3 a person is needed.",
        {state.target: state.level for state in now.targets},
    )
    yield _of_targets(
        "infra_recovery_attempts_left",
        "Recoveries that the limit of the hour still allows.",
        {state.target: state.attempts_left for state in now.targets},
    )
    held = Counter(
        (TargetRef.parse(state.target).component, state.phase)
        for state in now.targets
        if state.phase
    )
    yield _gauge(
        "infra_recovery_leases",
        "Recoveries under way, by how far they are.",
        {
            (component, phase): held[component, phase]
            for component in _components(now)
            for phase in ("queued", "running", "retrying")
        },
        "component",
        "phase",
    )


def _probes(now: Measurement) -> Iterator[Family]:
    seen = {state.target: state.seen for state in now.targets if state.seen is not None}
    yield Family(
        "infra_recovery_probes_total",
        "counter",
        "Probes, by what they found: healthy, or a failure type.",
        ("component", "result"),
        _floats(now.counted.probes),
    )
    yield _of_targets(
        "infra_recovery_probe_healthy",
        "Whether the last probe of a target found it healthy.",
        {target: int(one.healthy) for target, one in seen.items()},
    )
    yield _of_targets(
        "infra_recovery_target_failing",
        "Whether enough probes of a target failed to be sure.",
        {t: int(one.state not in (Observed.HEALTHY, Observed.SUSPECT)) for t, one in seen.items()},
    )
    yield _of_targets(
        "infra_recovery_probe_latency_seconds",
        "How long the last probe of a target took.",
        {target: one.latency_ms / 1000 for target, one in seen.items()},
    )
    yield _of_targets(
        "infra_recovery_probe_age_seconds",
        "How long ago a target was last probed.",
        {target: max(now.now_ms - one.at_ms, 0) / 1000 for target, one in seen.items()},
    )


def _modes(now: Measurement, policy: Policy) -> Iterator[Family]:
    active = {mode.mode for mode in now.degraded}
    yield _gauge(
        "infra_degraded_mode_active",
        "Whether a target is in this degraded mode.",
        {(name,): int(name in active) for name in sorted({*policy.degraded_modes, *active})},
        "mode",
    )
    off = {scope.scope for scope in now.disabled}
    yield _gauge(
        "infra_recovery_disabled",
        "Whether automatic recovery is switched off there.",
        {(scope,): int(scope in off) for scope in dict.fromkeys(["all", *_components(now), *off])},
        "scope",
    )


def _queues(now: Measurement) -> Iterator[Family]:
    yield _gauge(
        "infra_recovery_queue_length",
        "Messages that wait on a queue.",
        {(queue.name,): queue.length for queue in now.queues},
        "queue",
    )
    yield _gauge(
        "infra_recovery_queue_oldest_age_seconds",
        "Age of the oldest message of a queue.",
        {(queue.name,): queue.oldest_seconds or 0 for queue in now.queues},
        "queue",
    )
    yield _gauge(
        "infra_recovery_queue_consumers",
        "Living workers that consume a queue.",
        {(queue.name,): queue.consumers for queue in now.queues},
        "queue",
    )
    alive = sum(seen.is_alive for seen in now.workers)
    yield _gauge(
        "infra_recovery_workers",
        "Workers that said within the hour that they live.",
        {("alive",): alive, ("dead",): len(now.workers) - alive},
        "state",
    )


def _people(now: Measurement) -> Iterator[Family]:
    yield _gauge(
        "infra_recovery_approvals_waiting",
        "Recoveries that wait for a person.",
        {(): len(now.waiting)},
    )
    yield _gauge(
        "infra_recovery_approval_oldest_age_seconds",
        "How long the one has waited that waits longest.",
        {(): max((one.seconds for one in now.waiting), default=0)},
    )


def _trail(now: Measurement) -> Iterator[Family]:
    yield _gauge(
        "infra_recovery_audit_unsealed_entries",
        "Audit entries that are in no sealed file yet.",
        {(): now.audit_unsealed},
    )
    yield _gauge(
        "infra_recovery_audit_lag_seconds",
        "Age of the oldest audit entry that is in no sealed file yet.",
        {(): now.audit_lag_seconds},
    )


def _floats(counted: Mapping[tuple[str, str], int]) -> dict[Labels, float]:
    return dict(counted.items())


def _gauge(name: str, text: str, values: Mapping[Labels, float], *labels: str) -> Family:
    return Family(name, "gauge", text, labels, dict(values))


def _of_targets(name: str, text: str, values: Mapping[str, float]) -> Family:
    split = {_split(target): value for target, value in values.items()}
    return _gauge(name, text, split, "component", "target")


def _split(target: str) -> Labels:
    ref = TargetRef.parse(target)
    return ref.component, ref.name


def _components(now: Measurement) -> Iterable[str]:
    configured = {TargetRef.parse(state.target).component for state in now.targets}
    return [name for name in COMPONENTS if name in configured]


def _histogram(buckets: Mapping[float, int], total: float) -> Histogram:
    counts = accumulate(buckets.get(bound, 0) for bound in BOUNDS)
    return Histogram(tuple(zip(BOUNDS, counts, strict=True)), total)

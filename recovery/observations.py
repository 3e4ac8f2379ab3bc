"""What the last probes of each target found: written by one script, read by whoever shows it.

Judges how sure a failure is and remembers; sends no event and probes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from recovery.conclusion import DURATION_BUCKETS
from recovery.controlplane import reachable
from recovery.errors import ControlPlaneUnavailable
from recovery.events import Figures, Outcome, ProbeReport, Result, TargetRef

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.controlplane import ControlPlane

POINTS = 120
"""How many probes of a target are remembered: ten minutes of light ones by default."""

LIFE_SECONDS = 3600.0
"""How long the last observation is kept; a target that left the policy vanishes after it."""


EVENT_SECONDS = 600.0
"""After how long the event of a failure that goes on is sent anew, whatever became of the last one.
One on which nobody decided is sent again within seconds, as itself."""

BELIEVED_SECONDS = 30.0
"""How long a target counts as failing without another look, at least; three intervals else."""


RECENT_SECONDS = 15.0
"""How old a look may be that is to confirm what another one finds now."""


FIELDS = (
    "state",
    "since_ms",
    "healthy",
    "failure_type",
    "summary",
    "figures",
    "at_ms",
    "latency_ms",
    "depth",
    "host",
    "refused_why",
    "retry_ms",
)
"""What ``Observation.from_hash`` reads of all that is stored."""


class Depth(StrEnum):
    """A light probe costs milliseconds; a deep one looks at everything that it can."""

    LIGHT = "light"
    DEEP = "deep"


class Observed(StrEnum):
    """What is known of a target.

    ``suspect``: the last probe failed, too few did to be sure. ``held``: it fails, and is left
    alone because something else is the cause or too much fails at once.
    """

    HEALTHY = "healthy"
    SUSPECT = "suspect"
    FAILING = "failing"
    FLAPPING = "flapping"
    HELD = "held"


class Follow(StrEnum):
    """What a look asks for: another one soon, or to act on a change."""

    NOTHING = ""
    AGAIN = "again"
    FAILED = "failed"
    RECOVERED = "recovered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A target as it was last seen. ``healthy`` is the last probe's own word, ``state`` the
    judgement over several; ``failure_type`` is None where the state is healthy. ``refused`` is why
    the gate did not admit the event of this failure, ``retry_ms`` when it is asked again."""

    target: TargetRef
    state: Observed
    since_ms: int
    healthy: bool
    failure_type: str | None
    summary: str
    figures: Figures = field(default_factory=dict)
    at_ms: int
    latency_ms: float
    depth: Depth
    host: str
    refused: str | None = None
    retry_ms: int | None = None

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "target": str(self.target)}

    @classmethod
    def from_hash(cls, target: TargetRef, stored: Mapping[str, str]) -> Self:
        return cls(
            target=target,
            state=Observed(stored["state"]),
            since_ms=int(stored["since_ms"]),
            healthy=stored["healthy"] == "1",
            failure_type=stored.get("failure_type") or None,
            summary=stored.get("summary", ""),
            figures=json.loads(stored.get("figures", "{}")),
            at_ms=int(stored["at_ms"]),
            latency_ms=float(stored["latency_ms"]),
            depth=Depth(stored["depth"]),
            host=stored["host"],
            refused=stored.get("refused_why") or None,
            retry_ms=int(stored["retry_ms"]) if "retry_ms" in stored else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One probe in a target's history."""

    at_ms: int
    latency_ms: float
    healthy: bool
    failure_type: str | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the script made of one report. ``event_id``: of the event that has to be sent now."""

    state: Observed
    follow: Follow
    event_id: str | None = None


def record(
    control: ControlPlane,
    policy: Policy,
    target: TargetRef,
    report: ProbeReport,
    *,
    latency_ms: float,
    depth: Depth = Depth.LIGHT,
    proven: bool = False,
    wants_event: bool = False,
) -> Judgement:
    """Write down one report; raises ``ControlPlaneUnavailable``.

    ``proven``: it is the probe with which a recovery ended, whose healthy word ends a failure.
    ``wants_event``: the caller sends the event that the answer may name.
    """
    state, follow, event_id = control.run(
        "observe",
        str(target),
        target.component,
        depth.value,
        policy.host,
        int(report.healthy),
        report.failure_type or "",
        report.summary,
        json.dumps(dict(report.figures), separators=(",", ":")),
        round(latency_ms, 3),
        int(proven),
        str(uuid4()) if wants_event else "",
        _numbers(policy, target),
    )
    return Judgement(state=Observed(state), follow=Follow(follow), event_id=event_id or None)


def _numbers(policy: Policy, target: TargetRef) -> str:
    """What the script needs of the policy, in the order in which it reads it."""
    everybody, own = policy.detection, policy.probing(target)
    failures, of = (own.failures, own.of) if own else (everybody.failures, everybody.of)
    longest = max(own.every, own.deep_every or 0) if own else everybody.every
    believed = max(BELIEVED_SECONDS, 3 * longest)
    flapping, storm = everybody.flapping, everybody.storm
    return (
        f"{failures} {of} {LIFE_SECONDS * 1000:.0f} {POINTS} {believed * 1000:.0f}"
        f" {everybody.healthy_after * 1000:.0f}"
        f" {policy.limits(target).probation_seconds * 1000:.0f}"
        f" {flapping.changes} {flapping.window * 1000:.0f} {flapping.hold * 1000:.0f}"
        f" {policy.storm_size} {storm.calm * 1000:.0f} {EVENT_SECONDS * 1000:.0f}"
        f" {int(policy.audit.enabled)} {','.join(str(bound) for bound in DURATION_BUCKETS)}"
    )


def latest(control: ControlPlane) -> dict[TargetRef, Observation]:
    """The last observation of every target that was probed within the hour, by target.

    Raises ``ControlPlaneUnavailable``.
    """
    with reachable():
        names = sorted(control.redis.zrange(control.key("observed"), 0, -1))
        pipe = control.redis.pipeline(transaction=False)
        for name in names:
            pipe.hgetall(control.key("observation", name))
        stored = pipe.execute() if names else []
    found = zip((TargetRef.parse(name) for name in names), stored, strict=True)
    return {target: Observation.from_hash(target, held) for target, held in found if held}


def note_outcome(
    control: ControlPlane, policy: Policy, target: TargetRef, outcome: Outcome
) -> None:
    """The probe with which a recovery ended is a look, too; the next scheduled one may be far.

    Never raises: a control plane that is away only has it found out later.
    """
    report, probing = outcome.after or outcome.before, policy.probing(target)
    if report is None or probing is None:
        return
    # Where every look is a light one, no deep one would ever take back what this one found.
    depth = Depth.DEEP if probing.deep_every is not None else Depth.LIGHT
    is_proof = outcome.result in (Result.RECOVERED, Result.NOT_NEEDED)
    latency = latency_of(report, 0.0)
    with suppress(ControlPlaneUnavailable):
        record(
            control,
            policy,
            target,
            report,
            latency_ms=latency,
            depth=depth,
            proven=is_proof,
        )


def latency_of(report: ProbeReport, otherwise: float) -> float:
    """The latency in milliseconds that a probe measured of its target, where it did."""
    told = report.figures.get("latency_ms")
    return float(told) if isinstance(told, int | float) else otherwise


def is_seen_failing(control: ControlPlane, target: TargetRef) -> bool:
    """Whether scheduled probes hold a target for failing, by a look of the last seconds.

    False where the control plane cannot tell.
    """
    try:
        with reachable():
            pipe = control.redis.pipeline(transaction=False)
            pipe.time()
            pipe.hmget(control.key("observation", target), "phase", "at_ms")
            (seconds, _), (phase, at_ms) = pipe.execute()
    except ControlPlaneUnavailable:
        return False
    is_recent = int(seconds) - int(at_ms or 0) / 1000 <= RECENT_SECONDS
    return is_recent and str(phase) == Observed.FAILING


def history(control: ControlPlane, target: TargetRef) -> tuple[Point, ...]:
    """The last probes of a target, oldest first; raises ``ControlPlaneUnavailable``."""
    return histories(control, (target,))[target]


def histories(
    control: ControlPlane, targets: Sequence[TargetRef], most: int = POINTS
) -> dict[TargetRef, tuple[Point, ...]]:
    """The last probes of each, at most so many, in one round trip; raises like ``history``."""
    with reachable():
        pipe = control.redis.pipeline(transaction=False)
        for target in targets:
            pipe.lrange(control.key("observations", target), 0, most - 1)
        found = zip(targets, pipe.execute(), strict=True)
    return {
        target: tuple(_point(json.loads(text)) for text in reversed(stored))
        for target, stored in found
    }


def _point(stored: list[Any]) -> Point:
    at_ms, latency_ms, healthy, failure_type = stored
    return Point(
        at_ms=int(at_ms),
        latency_ms=float(latency_ms),
        healthy=healthy,
        failure_type=failure_type or None,
    )

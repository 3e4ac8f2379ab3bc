"""Looking at targets by schedule: claims what is due, probes it, writes down what was found.

Sends nothing. Whoever calls it says how to wait and sends the events that follow.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

import structlog

from recovery import observations
from recovery.controlplane import reachable
from recovery.events import ProbeReport, TargetRef
from recovery.finding import find_component, find_light_probe, find_probe
from recovery.memory import reminded
from recovery.observations import Depth, Follow, Judgement

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.config.policy import Probing
    from recovery.controlplane import ControlPlane

JITTER = 0.05
"""By how much of its interval a look comes earlier or later than the one before says."""

MARGIN_SECONDS = 5.0
"""What a look may take beyond its probes' own times until it counts as lost."""

SHORTEST_ROUND, LONGEST_ROUND = 1.0, 5.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One probe that is due ``wait`` seconds from when it was claimed."""

    target: TargetRef
    depth: Depth
    wait: float = 0.0
    every: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a look ended with."""

    look: Look
    report: ProbeReport
    latency_ms: float
    judgement: Judgement


def queues(policy: Policy) -> tuple[str, ...]:
    """Every queue on which this policy's targets are probed."""
    probed = (ref for ref in policy.target_refs() if policy.probing(ref))
    return tuple(sorted({policy.probe_queue(ref) for ref in probed}))


def round_seconds(policy: Policy, queue: str) -> float:
    """How often the looks of a queue are given out: as often as its most watched target wants."""
    intervals = (settings.every for _, settings in _on(policy, queue))
    return min(max(min(intervals), SHORTEST_ROUND), LONGEST_ROUND)


def claim(control: ControlPlane, policy: Policy, queue: str) -> tuple[Look, ...]:
    """Take the looks of a queue that are due before its next round, the earliest first.

    Whoever else asks gets none of them. Raises ``ControlPlaneUnavailable``.
    """
    wanted = [
        Look(target=ref, depth=depth, every=every)
        for ref, settings in _on(policy, queue)
        for depth, every in ((Depth.LIGHT, settings.every), (Depth.DEEP, settings.deep_every))
        if every is not None
    ]
    if not wanted:
        return ()
    given = control.run(
        "claim_looks",
        int(round_seconds(policy, queue) * 1000),
        int(observations.LIFE_SECONDS * 1000),
        *(part for look in wanted for part in _arguments(policy, look)),
    )
    pairs = zip(given[::2], given[1::2], strict=True)
    claimed = (
        Look(
            target=wanted[number].target,
            depth=wanted[number].depth,
            wait=wait_ms / 1000,
            every=wanted[number].every,
        )
        for number, wait_ms in pairs
    )
    return tuple(sorted(claimed, key=lambda look: look.wait))


def hurry(control: ControlPlane, targets: Iterable[TargetRef]) -> None:
    """Have the next round look at these targets at once; raises ``ControlPlaneUnavailable``."""
    with reachable():
        pipe = control.redis.pipeline(transaction=False)
        for target in targets:
            pipe.hset(control.key("looks", target), Depth.LIGHT.value, 0)
        pipe.execute()


def look(
    control: ControlPlane,
    policy: Policy,
    one: Look,
    *,
    pause: Callable[[float], object] = time.sleep,
    is_over: Callable[[], bool] = lambda: False,
    suspected: Callable[[TargetRef], object] = lambda _: None,
) -> Finding:
    """Probe until it is sure whether the target fails; raises ``ControlPlaneUnavailable``.

    ``pause`` waits between two probes, unless it ``is_over``; ``suspected`` is told of a failing
    one that is not believed yet.
    """
    while True:
        report, latency_ms = probe(control, policy, one.target, one.depth)
        wants_event = report.failure_type in policy.failure_types(one.target.component)
        judged = observations.record(
            control,
            policy,
            one.target,
            report,
            latency_ms=latency_ms,
            depth=one.depth,
            wants_event=wants_event,
        )
        if judged.follow is not Follow.AGAIN or is_over():
            return Finding(look=one, report=report, latency_ms=latency_ms, judgement=judged)
        suspected(one.target)
        pause(policy.detection.confirm_after)


def probe(
    control: ControlPlane, policy: Policy, ref: TargetRef, depth: Depth
) -> tuple[ProbeReport, float]:
    """One probe, and its latency in milliseconds: the target's own where it tells one."""
    settings = policy.probing(ref)
    find = find_light_probe if depth is Depth.LIGHT else find_probe
    ask = find(ref.component)
    began = time.perf_counter()
    try:
        report = ask(reminded(control, policy, ref), _timeout(ref, settings))
    except Exception as error:
        # What cannot be probed is not healthy; and what is wrong here is no failure of the target.
        log.exception("probe crashed", target=str(ref))
        report = ProbeReport(
            healthy=False, failure_type="probe_crashed", summary=type(error).__name__
        )
    took = (time.perf_counter() - began) * 1000
    return report, observations.latency_of(report, took)


def _on(policy: Policy, queue: str) -> list[tuple[TargetRef, Probing]]:
    """The targets that are probed on a queue, and how."""
    return [
        (ref, settings)
        for ref in policy.target_refs()
        if (settings := policy.probing(ref)) and policy.probe_queue(ref) == queue
    ]


def _arguments(policy: Policy, one: Look) -> tuple[str | int, ...]:
    """Spread over the interval by name, and never twice at the same distance."""
    phase = crc32(f"{one.target}|{one.depth}".encode()) / 2**32 * one.every
    following = one.every * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
    settings = policy.probing(one.target)
    confirm = policy.detection.confirm_after
    probes = settings.failures if settings else 1
    longest = (_timeout(one.target, settings) + confirm) * probes + MARGIN_SECONDS
    times = (phase, following, longest)
    return (str(one.target), one.depth.value, *(int(seconds * 1000) for seconds in times))


def _timeout(ref: TargetRef, settings: Probing | None) -> float:
    return settings.timeout if settings else find_component(ref.component).probe_seconds

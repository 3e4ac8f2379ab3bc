"""What no single key shows: names of one part of a policy that another part must know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from recovery.config import dependencies
from recovery.config.document import KeyPath
from recovery.config.policy import Policy
from recovery.events import TargetRef

Fault: TypeAlias = tuple[KeyPath, str, tuple[str, ...]]
"""Where it stands, what is wrong, and what is allowed."""


def faults(policy: Policy) -> Iterator[Fault]:
    """Everything that is wrong between the targets of a policy that is right in itself."""
    for ref in policy.target_refs():
        yield from _unknown_strategies(policy, ref)
        yield from _impossible_looks(policy, ref)
        if contradiction := policy.target(ref).contradiction():
            yield _key(ref), contradiction, ()
    unknown = [fault for ref in policy.target_refs() for fault in _unknown_roots(policy, ref)]
    yield from unknown
    if not unknown:
        yield from _circles(policy)


def _key(ref: TargetRef, *below: str | int) -> KeyPath:
    return ("recovery", ref.component, "targets", ref.name, *below)


def _unknown_strategies(policy: Policy, ref: TargetRef) -> Iterator[Fault]:
    known = tuple(strategy.name for strategy in policy.component(ref.component).strategies)
    for number, name in enumerate(policy.target(ref).unattended):
        if name not in known:
            yield _key(ref, "unattended", number), f"{name} is no configured strategy", known


def _impossible_looks(policy: Policy, ref: TargetRef) -> Iterator[Fault]:
    own, everybody = policy.target(ref).probe, policy.detection
    if (own.failures or everybody.failures) > (own.of or everybody.of):
        yield _key(ref, "probe"), "failures must not be more than of", ()


def _unknown_roots(policy: Policy, ref: TargetRef) -> Iterator[Fault]:
    known = policy.target_refs()
    for number, name in enumerate(policy.target(ref).depends_on):
        try:
            tuple(dependencies.parse((name,), known))
        except ValueError as error:
            yield _key(ref, "depends_on", number), str(error), tuple(map(str, known))


def _circles(policy: Policy) -> Iterator[Fault]:
    """Each circle once, at the first of its targets."""
    told: set[TargetRef] = set()
    for ref in policy.target_refs():
        way = dependencies.circle(policy.dependencies, ref)
        if way and not told & set(way):
            told |= set(way)
            yield _key(ref, "depends_on"), f"goes in a circle: {' → '.join(map(str, way))}", ()

"""Which targets stand on which: read from ``depends_on``, checked when a policy is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from recovery.errors import InvalidEvent
from recovery.events import TargetRef

Graph: TypeAlias = Mapping[TargetRef, tuple[TargetRef, ...]]
"""What each target itself declares, in its own order."""


def roots_of(graph: Graph, target: TargetRef) -> tuple[TargetRef, ...]:
    """Everything that a target stands on, directly or not, the nearest first."""
    found: list[TargetRef] = []
    level: Sequence[TargetRef] = graph.get(target, ())
    while level:
        found += [ref for ref in level if ref not in found]
        level = [below for ref in level for below in graph.get(ref, ()) if below not in found]
    return tuple(found)


def dependants_of(graph: Graph, root: TargetRef) -> tuple[TargetRef, ...]:
    """Everything that stands on a target, directly or not."""
    return tuple(target for target in graph if root in roots_of(graph, target))


def parse(names: Sequence[str], known: Sequence[TargetRef]) -> Iterator[TargetRef]:
    """The targets that names mean; raises ``ValueError`` for one that is not configured."""
    for name in names:
        try:
            ref = TargetRef.parse(name)
        except InvalidEvent as error:
            raise ValueError(error.message) from error
        if ref not in known:
            raise ValueError(f"{name} is not a configured target")
        yield ref


def circle(graph: Graph, start: TargetRef) -> tuple[TargetRef, ...] | None:
    """The way from a target back to itself, where there is one."""
    ways: list[tuple[TargetRef, ...]] = [(start,)]
    seen: set[TargetRef] = set()
    while ways:
        way = ways.pop()
        for below in graph.get(way[-1], ()):
            if below == start:
                return (*way, start)
            if below not in seen:
                seen.add(below)
                ways.append((*way, below))
    return None

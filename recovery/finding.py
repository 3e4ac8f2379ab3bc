"""Finding what is declared by its name: a component, its strategies, probes and their references.

A component is a folder ``recovery/components/<name>`` whose package declares ``COMPONENT``; a
strategy is one function in the file named after it in that folder. Finding one imports only its
own component, so a worker pays for nothing it does not repair.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

from recovery.errors import InvalidEvent
from recovery.strategy import COMPONENTS, unknown

if TYPE_CHECKING:
    from recovery.strategy import Component, Discard, Evidence, Probe, Strategy, Undo


@cache
def find_component(name: str) -> Component:
    if name not in COMPONENTS:
        raise unknown("component", name, COMPONENTS)
    declared: Component = importlib.import_module(f"recovery.components.{name}").COMPONENT
    return declared


@cache
def find_strategy(component: str, name: str) -> Strategy:
    declared = find_component(component)
    for planned in declared.planned:
        if planned.name == name:
            return planned
    if name not in declared.strategies:
        raise unknown("strategy", name, strategy_names(component))
    module = importlib.import_module(f"recovery.components.{component}.{name}")
    found: Strategy = getattr(module, name)
    return found


def strategy_names(component: str) -> tuple[str, ...]:
    declared = find_component(component)
    return (*declared.strategies, *(planned.name for planned in declared.planned))


@cache
def find_probe(component: str) -> Probe:
    """Raises ``InvalidEvent`` where this release has no probe for the component."""
    found: Probe | None = _load(find_component(component).probe)
    if found is None:
        raise InvalidEvent(
            f"this release has no probe for {component}", {"field": "component", "value": component}
        )
    return found


@cache
def find_light_probe(component: str) -> Probe:
    """The component's probe itself where that is light enough."""
    found: Probe | None = _load(find_component(component).light_probe)
    return found or find_probe(component)


@cache
def find_evidence(component: str) -> Evidence | None:
    found: Evidence | None = _load(find_component(component).evidence)
    return found


@cache
def find_undo(component: str, name: str) -> Undo | None:
    found: Undo | None = _load(find_strategy(component, name).undo)
    return found


@cache
def find_proof(component: str, name: str) -> Probe | None:
    found: Probe | None = _load(find_strategy(component, name).proof)
    return found


@cache
def find_discard(component: str, name: str) -> Discard | None:
    found: Discard | None = _load(find_strategy(component, name).discard)
    return found


def _load(reference: str | None) -> Any:
    if reference is None:
        return None
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)

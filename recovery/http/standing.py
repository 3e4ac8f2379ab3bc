"""How a target stands, in one word: from its lease, its level, its modes and its last probe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from recovery.events import TargetRef
from recovery.http.models import ComponentReadiness, Readiness, TargetReadiness
from recovery.observations import Observed

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.disabling import Disabled
    from recovery.measurement import Measurement, TargetState
    from recovery.modes import DegradedMode


class Word(StrEnum):
    """From the one that a person should see first to the one that needs no look."""

    PERSON = "person"
    REPAIRING = "repairing"
    DOWN = "down"
    COOLING = "cooling"
    OFF = "off"
    WELL = "well"
    UNKNOWN = "unknown"

    @property
    def label(self) -> str:
        """For people."""
        return _LABELS.get(self.value, self.value)


_LABELS = {
    "person": "needs a person",
    "repairing": "being repaired",
    "cooling": "cooling down",
    "off": "switched off",
    "unknown": "not probed",
}

AUTOMATIC, PERSON_NEEDED = 1, 3
"""Levels of escalation; between them something has failed and cools down."""

_FAILING = frozenset({Observed.FAILING, Observed.FLAPPING, Observed.HELD})

UNWELL = frozenset({Word.PERSON, Word.REPAIRING, Word.DOWN, Word.COOLING})


@dataclass(frozen=True, slots=True)
class Standing:
    """One target with all that is known of it."""

    ref: TargetRef
    word: Word
    state: TargetState
    mode: DegradedMode | None
    disabled: Disabled | None

    @property
    def is_unwell(self) -> bool:
        return self.word in UNWELL


def standings(now: Measurement) -> tuple[Standing, ...]:
    """In the policy's order."""
    modes = {mode.target: mode for mode in now.degraded}
    off = {scope.scope: scope for scope in now.disabled}
    return tuple(_standing(state, modes.get(state.target), off) for state in now.targets)


def readiness(now: Measurement, policy: Policy) -> Readiness:
    """A component is ready where every target of it works."""
    found = standings(now)
    components = {
        name: _component(one for one in found if one.ref.component == name)
        for name in policy.components
    }
    ready = all(component.ready for component in components.values())
    return Readiness(ready=ready, control_plane=True, components=components)


def _component(found: Iterable[Standing]) -> ComponentReadiness:
    targets = {
        one.ref.name: TargetReadiness(ready=not one.is_unwell, state=one.word.value)
        for one in found
    }
    ready = all(target.ready for target in targets.values())
    return ComponentReadiness(ready=ready, targets=targets)


def _standing(state: TargetState, mode: DegradedMode | None, off: dict[str, Disabled]) -> Standing:
    ref = TargetRef.parse(state.target)
    disabled = off.get("all") or off.get(ref.component) or off.get(state.target)
    return Standing(ref, _word(state, mode, disabled), state, mode, disabled)


def _word(state: TargetState, mode: DegradedMode | None, disabled: Disabled | None) -> Word:
    if state.phase is not None:
        return Word.REPAIRING
    if state.level >= PERSON_NEEDED:
        return Word.PERSON
    if mode is not None or (state.seen is not None and state.seen.state in _FAILING):
        return Word.DOWN
    if state.level > AUTOMATIC or state.cooldown_seconds:
        return Word.COOLING
    if disabled is not None:
        return Word.OFF
    return Word.UNKNOWN if state.seen is None else Word.WELL

"""What an application knows of degraded modes, in memory: asked without a lock, never a round trip.

The background thread writes and everybody reads. A reader sees a change wholly or not at all,
because what it reads is replaced by one assignment and never changed.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from recovery.modes import SHIPPED, Capabilities, DegradedMode

OWN_SECONDS = 10.0
"""What this process saw by itself holds so long, unless it is seen again."""

log = logging.getLogger("recovery.client")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A degraded mode that began, or is over."""

    mode: DegradedMode
    active: bool


Subscriber = Callable[[Change], object]


class Knowledge:
    """Knowing nothing means that everything may be used: a missing answer must not stop anybody."""

    def __init__(self) -> None:
        self.modes: Mapping[str, DegradedMode] = {}
        self.unavailable: frozenset[str] = frozenset()
        self.is_current = False
        """Whether the control plane would tell us of a change at once."""
        self.subscribers: tuple[Subscriber, ...] = ()
        self._told: Mapping[str, DegradedMode] = {}
        self._own: dict[str, tuple[DegradedMode, float]] = {}
        self._lists: dict[str, Capabilities] = dict(SHIPPED)
        self._confirmed: float | None = None

    def read(self, stored: Mapping[str, str]) -> None:
        """Take what the control plane holds: target → mode as JSON."""
        told = {}
        for target, text in stored.items():
            try:
                told[target] = self._parse(target, json.loads(text))
            except (KeyError, TypeError, ValueError) as error:
                log.warning("degraded mode of %s cannot be read: %r", target, error)
        self._told = told
        self._confirmed = time.monotonic()
        self.is_current = True
        self._settle()

    def hear(self, text: str) -> None:
        """Take one change as it was published; raises ``KeyError``, ``TypeError`` or ``ValueError``
        where the text is none."""
        change = json.loads(text)
        target = change["target"]
        told = {name: mode for name, mode in self._told.items() if name != target}
        if change["active"]:
            told[target] = self._parse(target, change)
        self._told = told
        self._settle()

    def lose(self) -> None:
        """The control plane is away: what is known stays known, and grows old."""
        self.is_current = False

    def see(self, target: str, *, works: bool) -> None:
        """Take what this process saw of a target by itself, in ``OWN_SECONDS`` of need."""
        if works:
            self._own.pop(target, None)
        else:
            held = self._own.get(target)
            mode = held[0] if held else self._found(target)
            self._own[target] = (mode, time.monotonic() + OWN_SECONDS)
        self._settle()

    def forget_old(self) -> None:
        """Own observations that nobody made again are no longer believed."""
        now = time.monotonic()
        old = [target for target, (_, until) in self._own.items() if until < now]
        for target in old:
            del self._own[target]
        if old:
            self._settle()

    @property
    def doubted(self) -> frozenset[str]:
        """The targets of which this process saw by itself that they do not work."""
        return frozenset(self._own)

    def age(self) -> float | None:
        """Seconds since everything was read; ``None`` where it never was."""
        return None if self._confirmed is None else time.monotonic() - self._confirmed

    def _parse(self, target: str, held: Mapping[str, object]) -> DegradedMode:
        mode = DegradedMode.from_dict(target, held)
        self._lists[mode.mode] = Capabilities(mode.available, mode.unavailable)
        return mode

    def _found(self, target: str) -> DegradedMode:
        """The mode of a target that does not work, with the lists that were last heard for it."""
        name = f"{target.partition('/')[0]}_unavailable"
        lists = self._lists.get(name, Capabilities((), ()))
        return DegradedMode(
            target=target,
            mode=name,
            since=datetime.now(UTC),
            recovery_id="",
            available=lists.available,
            unavailable=lists.unavailable,
            is_own=True,
        )

    def _settle(self) -> None:
        """What the control plane says of a target stands before what was seen here."""
        seen = {target: mode for target, (mode, _) in self._own.items()}
        before, after = self.modes, dict(sorted({**seen, **self._told}.items()))
        self.modes = after
        self.unavailable = frozenset(name for mode in after.values() for name in mode.unavailable)
        for target in sorted(before.keys() | after.keys()):
            self._tell(before.get(target), after.get(target))

    def _tell(self, before: DegradedMode | None, after: DegradedMode | None) -> None:
        if before is not None and after is None:
            self._call(Change(mode=before, active=False))
        elif after is not None and (before is None or before.mode != after.mode):
            self._call(Change(mode=after, active=True))

    def _call(self, change: Change) -> None:
        for subscriber in self.subscribers:
            try:
                subscriber(change)
            except Exception:
                # It is somebody else's code; the thread goes on for everybody.
                log.exception("a subscriber failed at a change of %s", change.mode.target)

"""What an application knows of degraded modes, in memory: asked without a lock, never a round trip.

One thread writes and everybody reads. A reader sees a change wholly or not at all, because what it
reads is replaced by one assignment and never changed.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping

from recovery.degraded import DegradedMode

log = logging.getLogger("recovery.client")


class Knowledge:
    """Knowing nothing means that everything may be used: a missing answer must not stop anybody."""

    def __init__(self) -> None:
        self.modes: Mapping[str, DegradedMode] = {}
        self.unavailable: frozenset[str] = frozenset()
        self._confirmed: float | None = None

    def read(self, stored: Mapping[str, str]) -> None:
        """Take what the control plane holds: target → mode as JSON."""
        modes = {}
        for target, text in sorted(stored.items()):
            try:
                modes[target] = DegradedMode.from_dict(target, json.loads(text))
            except (KeyError, TypeError, ValueError) as error:
                log.warning("degraded mode of %s cannot be read: %r", target, error)
        self._replace(modes)
        self._confirmed = time.monotonic()

    def hear(self, text: str) -> None:
        """Take one change as it was published; raises ``KeyError``, ``TypeError`` or ``ValueError``
        where the text is none."""
        change = json.loads(text)
        target = change["target"]
        modes = {name: mode for name, mode in self.modes.items() if name != target}
        if change["active"]:
            modes[target] = DegradedMode.from_dict(target, change)
        self._replace(dict(sorted(modes.items())))

    def age(self) -> float | None:
        """Seconds since everything was read; ``None`` where it never was."""
        return None if self._confirmed is None else time.monotonic() - self._confirmed

    def _replace(self, modes: Mapping[str, DegradedMode]) -> None:
        self.modes = modes
        self.unavailable = frozenset(name for mode in modes.values() for name in mode.unavailable)

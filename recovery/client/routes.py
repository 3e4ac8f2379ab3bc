"""The routes of Open WebUI targets as they were last heard, for whoever asks for a model.

Kept as text, which only ``recovery.inference`` reads; heard only where somebody uses that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping


class Routes:
    """The background thread writes, everybody reads: replaced by one assignment, never changed."""

    def __init__(self) -> None:
        self.texts: Mapping[str, str] = {}
        self.is_wanted = False
        self.was_read = False

    def read(self, stored: Mapping[str, str]) -> None:
        """Take what the control plane holds: target → route as JSON."""
        # The same text stays the same object: whoever has read it once need not again.
        self.texts = {
            target: held if (held := self.texts.get(target)) == text else text
            for target, text in stored.items()
        }
        self.was_read = True

    def hear(self, text: str) -> None:
        """Take one change; raises ``KeyError``, ``TypeError`` or ``ValueError`` where it is
        none."""
        target = json.loads(text)["target"]
        if not isinstance(target, str):
            raise TypeError("a target is named by a text")
        if self.texts.get(target) != text:
            self.texts = {**self.texts, target: text}

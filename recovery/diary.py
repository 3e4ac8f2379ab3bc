"""The journal of a remedy that runs outside of any recovery: its steps go to the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import structlog

from recovery.deadline import Deadline
from recovery.errors import NothingKept
from recovery.events import Figure
from recovery.strategy import Kept, Scope

T = TypeVar("T")

log = structlog.get_logger()


class Diary:
    """See ``recovery.strategy.Journal``."""

    dry_run = False
    overwrite = False

    def __init__(self, recovery_id: str, scope: Scope, seconds: float, own_prefix: str) -> None:
        self.recovery_id = recovery_id
        self.scope = scope
        self.own_prefix = own_prefix
        self._deadline = Deadline(seconds)

    def keep(self) -> Kept:
        raise NothingKept("nothing is put aside outside of a recovery")

    def remaining(self) -> float:
        return self._deadline.remaining()

    def note(self, text: str, **figures: Figure) -> None:
        log.info("step", recovery_id=self.recovery_id, step=text, **figures)

    def change(self, text: str, action: Callable[[], T], **figures: Figure) -> T | None:
        self.remaining()
        result = action()
        self.note(text, **figures)
        return result

    def progress(self, text: str, percent: int) -> None:
        self.note(text, percent=percent)

    def tell_applications(self, text: str, notice: str) -> None:
        self.note(f"not done, the control plane is away: {text}", notice=notice)

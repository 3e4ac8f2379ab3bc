"""A journal for remedies that a test runs by itself, without a control plane."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from recovery import keeping
from recovery.events import Figure, Step
from recovery.journal import Deadline
from recovery.strategy import Kept, Scope

T = TypeVar("T")


@dataclass
class PlainJournal:
    """See ``recovery.strategy.Journal``; its steps stay in memory."""

    folder: Path = Path()
    recovery_id: str = "test"
    seconds: float = 10.0
    dry_run: bool = False
    scope: Scope = field(default_factory=Scope)
    steps: list[Step] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._deadline = Deadline(self.seconds)

    def keep(self) -> Kept:
        return keeping.keep(self.folder, self.recovery_id)

    def remaining(self) -> float:
        return self._deadline.remaining()

    def note(self, text: str, **figures: Figure) -> None:
        self.steps.append(Step(text=text, at_seconds=0, figures=figures))

    def change(self, text: str, action: Callable[[], T], **figures: Figure) -> T | None:
        self.steps.append(Step(text=text, at_seconds=0, figures=figures, planned=self.dry_run))
        return None if self.dry_run else action()

    def tell_applications(self, text: str, notice: str) -> None:
        self.notices.append(notice)

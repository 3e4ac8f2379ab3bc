"""A journal for tests of single remedies: real keeping, a real deadline, steps in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from recovery.deadline import Deadline
from recovery.events import Figure, Step
from recovery.keeping import KeptFolder, Shelf
from recovery.strategy import Scope

T = TypeVar("T")

RECOVERY = "1a2b3c4d-0000"

_open: dict[Path, KeptFolder] = {}


@dataclass(slots=True)
class MemoryJournal:
    """See ``recovery.strategy.Journal``."""

    state_dir: Path = Path()
    recovery_id: str = RECOVERY
    seconds: float = 60.0
    dry_run: bool = False
    overwrite: bool = False
    own_prefix: str = "recovery:"
    scope: Scope = field(default_factory=Scope)
    steps: list[Step] = field(default_factory=list)
    watchers: dict[str, Callable[[], object]] = field(default_factory=dict)
    deadline: Deadline = field(init=False)

    def __post_init__(self) -> None:
        self.begin(self.seconds)

    def begin(self, seconds: float) -> None:
        """Count its time from now."""
        self.seconds, self.deadline = seconds, Deadline(seconds)

    def after(self, text: str, action: Callable[[], object]) -> MemoryJournal:
        """Have something happen in the world right after the first step that holds ``text``."""
        self.watchers[text] = action
        return self

    @property
    def notices(self) -> list[str]:
        """What applications were told."""
        return [str(step.figures["notice"]) for step in self.steps if "notice" in step.figures]

    @property
    def texts(self) -> list[str]:
        return [step.text for step in self.steps]

    def keep(self) -> KeptFolder:
        """The lock on a folder is this process's: every journal of a recovery shares it."""
        path = self.state_dir / "kept" / self.recovery_id
        if path not in _open:
            _open[path] = Shelf(directory=path.parent).keep(self.recovery_id)
        return _open[path]

    def remaining(self) -> float:
        return self.deadline.remaining()

    def note(self, text: str, **figures: Figure) -> None:
        self._write(text, figures, planned=False)

    def change(self, text: str, action: Callable[[], T], **figures: Figure) -> T | None:
        if self.dry_run:
            self._write(text, figures, planned=True)
            return None
        self.remaining()
        result = action()
        self._write(text, figures, planned=False)
        return result

    def progress(self, text: str, percent: int) -> None:
        self.note(text, percent=percent)

    def tell_applications(self, text: str, notice: str) -> None:
        self.note(text, notice=notice)

    def _write(self, text: str, figures: dict[str, Figure], *, planned: bool) -> None:
        at = round(self.seconds - self.deadline.left(), 3)
        self.steps.append(Step(text=text, at_seconds=at, figures=figures, planned=planned))
        for awaited in [awaited for awaited in self.watchers if awaited in text]:
            self.watchers.pop(awaited)()

"""The diary of one running remedy: its steps, and the channel to applications."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import structlog

from recovery.admission import RECORD_TTL_SECONDS
from recovery.controlplane import reachable
from recovery.deadline import Deadline
from recovery.errors import ControlPlaneUnavailable
from recovery.events import Figure, Step, TargetRef

if TYPE_CHECKING:
    from recovery.controlplane import ControlPlane
    from recovery.strategy import Kept, Scope

T = TypeVar("T")

Told = Callable[[str, int], None]
"""What is being done, and how many percent of it are: for whoever waits for it elsewhere."""

log = structlog.get_logger()


def tell_nobody(_: str, __: int) -> None:
    """For those of whom nobody waits for their progress."""


class RecordingJournal:
    """Writes each step to the control plane while it happens, so that people can watch.

    A control plane that is away costs the diary a line, never the repair.
    """

    def __init__(
        self,
        control: ControlPlane,
        recovery_id: str,
        target: TargetRef,
        *,
        deadline: Deadline,
        keeper: Callable[[], Kept],
        scope: Scope,
        dry_run: bool = False,
        overwrite: bool = False,
        told: Told = tell_nobody,
    ) -> None:
        self.scope = scope
        self.dry_run = dry_run
        self.overwrite = overwrite
        self.own_prefix = control.prefix
        self.has_changed = False
        self._keeper = keeper
        self._kept: Kept | None = None
        self.steps: list[Step] = []
        self._control = control
        self.recovery_id = recovery_id
        self._target = target
        self._deadline = deadline
        self._told = told
        self._began = time.monotonic()

    def keep(self) -> Kept:
        """One folder for all who ask: its lock is this attempt's."""
        if self._kept is None:
            self._kept = self._keeper()
        return self._kept

    def remaining(self) -> float:
        return self._deadline.remaining()

    def note(self, text: str, **figures: Figure) -> None:
        self._write(text, figures, planned=False)

    def change(self, text: str, action: Callable[[], T], **figures: Figure) -> T | None:
        if self.dry_run:
            self._write(text, figures, planned=True)
            return None
        self.remaining()
        self.has_changed = True
        result = action()
        self._write(text, figures, planned=False)
        return result

    def progress(self, text: str, percent: int) -> None:
        self._write(text, {"percent": percent}, planned=False)
        self._told(text, percent)

    def tell_applications(self, text: str, notice: str) -> None:
        message = json.dumps(
            {"target": str(self._target), "notice": notice, "id": self.recovery_id}
        )

        def publish() -> None:
            channel = self._control.key("notices")
            with reachable():
                # Kept as well, for applications that were out of reach when it was said.
                pipe = self._control.redis.pipeline(transaction=False)
                pipe.hset(channel, str(self._target), message)
                pipe.publish(channel, message)
                pipe.execute()

        try:
            self.change(text, publish, notice=notice)
        except ControlPlaneUnavailable as error:
            self.note("applications could not be told", why=error.message)

    def _write(self, text: str, figures: dict[str, Figure], *, planned: bool) -> None:
        step = Step(
            text=text,
            at_seconds=round(time.monotonic() - self._began, 4),
            figures=figures,
            planned=planned,
        )
        self.steps.append(step)
        log.info(
            "step", step=text, planned=planned, **{f"figure_{k}": v for k, v in figures.items()}
        )
        key = self._control.key("steps", self.recovery_id)
        try:
            with reachable():
                pipe = self._control.redis.pipeline(transaction=False)
                pipe.rpush(key, json.dumps(step.as_dict(), separators=(",", ":")))
                pipe.expire(key, RECORD_TTL_SECONDS)
                pipe.execute()
        except ControlPlaneUnavailable as error:
            log.warning("step not stored", error=str(error))

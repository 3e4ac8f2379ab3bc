"""What every runtime can do with a process, and how it is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias

from recovery.deadline import Deadline
from recovery.errors import NeverReady, WontStart

PAUSE = 0.05
"""Seconds between two looks at something that is waited for."""

LOOK_SECONDS = 0.5
"""How often a process that is not ready yet is looked at; that may cost a command."""

KILL_SECONDS = 5.0
"""How long a process may take to be gone after KILL before it counts as one that won't stop."""

Remaining: TypeAlias = Callable[[], float]
"""Seconds until the deadline; raises ``DeadlineExceeded`` when it has passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessState:
    """What a runtime says of its process.

    ``id`` is the runtime's own and differs for each start where it can: a container's id, a unit's
    invocation, a pid. ``started_at`` is in epoch seconds of this host. ``detail`` is the runtime's
    own word for the state. ``carries_us``: whether the one who asks lives in it.
    """

    exists: bool
    running: bool = False
    id: str | None = None
    pid: int | None = None
    started_at: float | None = None
    detail: str = ""
    carries_us: bool = False


class Process(Protocol):
    """A target's process, as its runtime lets us handle it.

    Every method ends within the deadline that the process was opened with and raises
    ``RuntimeUnavailable`` where the runtime does not answer, ``NoSuchProcess`` where it knows no
    such process, ``DeadlineExceeded`` when the time is over.
    """

    def inspect(self) -> ProcessState: ...

    def stop(self, grace: float, *, kill: bool = True) -> None:
        """TERM, ``grace`` seconds, KILL; no error where it is not running. ``WontStop``.

        Without ``kill`` it is left to end by itself: it may still do so after this raised.
        """
        ...

    def start(self) -> None:
        """No error where it runs already; returns before it is ready. ``WontStart``."""
        ...

    def restart(self, grace: float) -> None:
        """Stop and start; killed in between, the next one starts it."""
        ...


class Readiness(StrEnum):
    """What the caller's probe says of a process that was started."""

    READY = "ready"
    COMING = "coming"
    """It answers that it needs time: to begin again would only cost more of it."""
    ABSENT = "absent"


Ready: TypeAlias = Callable[[], Readiness]


def await_ready(
    ready: Ready, inspect: Callable[[], ProcessState], within: Deadline, what: str
) -> Readiness:
    """Ask until it is ready, or until the time is over and it has said that it is coming.

    Raises ``NeverReady`` where it never said so, and ``WontStart`` when the process has ended.
    """
    best, look, detail = Readiness.ABSENT, Deadline(0), ""
    while True:
        found = ready()
        if found is Readiness.READY:
            return found
        best = Readiness.COMING if found is Readiness.COMING else best
        if look.left() <= 0:
            state, look = inspect(), Deadline(LOOK_SECONDS)
            if not state.running:
                raise WontStart(f"{what} was started and ended: {state.detail}")
            detail = state.detail
        if within.left() <= PAUSE:
            break
        time.sleep(PAUSE)
    if best is Readiness.ABSENT:
        raise NeverReady(f"{what} was not ready within {within.seconds:.1f} s: it is {detail}")
    return best


def await_end(is_running: Callable[[], bool], seconds: float, remaining: Remaining) -> bool:
    """Whether it ended within ``seconds``; raises ``DeadlineExceeded``."""
    patience = Deadline(seconds)
    while is_running():
        if patience.left() <= 0:
            return False
        time.sleep(min(PAUSE, remaining()))
    return True


def born(pid: int) -> float | None:
    """When a process of this host began, in epoch seconds; None where it is gone."""
    import psutil

    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None

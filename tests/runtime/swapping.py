"""A replacement in a process of its own, which the test kills with SIGKILL."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event

from recovery.components.redis.target import RedisTarget
from recovery.errors import RemedyError
from recovery.runtime import DockerRuntime, Readiness
from recovery.runtime.docker_replace import BACK_SECONDS, replace
from tests.containers import restart
from tests.journals import MemoryJournal

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["docker", __name__])

Run = Callable[[RedisTarget, MemoryJournal], object]


@dataclass(slots=True)
class Swap:
    """One run; its time counts from a chosen step on."""

    child: BaseProcess
    reached: Event

    def seconds(self) -> float:
        """How long an undisturbed one takes."""
        self.reached.wait()
        since = time.monotonic()
        self.child.join()
        assert self.child.exitcode == 0
        return time.monotonic() - since

    def dies(self) -> None:
        """By itself, where its journal says so."""
        self.child.join()
        assert self.child.exitcode == -signal.SIGKILL

    def kill_after(self, seconds: float) -> None:
        self.reached.wait()
        self.child.join(seconds)
        self.child.kill()
        self.child.join()


def start(run: Run, target: RedisTarget, journal: MemoryJournal, *, step: str = "") -> Swap:
    """``step``: a part of the text of the step from which time counts; by default the beginning."""
    reached = _context.Event()
    if step:
        journal.after(step, reached.set)
    # The server that forks may have been started by another test, with its environment.
    arguments = (reached, run, target, journal, step, dict(os.environ))
    child = _context.Process(target=_run, args=arguments)
    child.start()
    journal.watchers.clear()
    return Swap(child, reached)


def _run(
    reached: Event,
    run: Run,
    target: RedisTarget,
    journal: MemoryJournal,
    step: str,
    environ: dict[str, str],
) -> None:
    os.environ.update(environ)
    if not step:
        reached.set()
    try:
        run(target, journal)
    finally:
        # A run that resumes another may not need the step.
        reached.set()


def succeed(target: RedisTarget, journal: MemoryJournal) -> None:
    restart(target, journal)


def fail(target: RedisTarget, journal: MemoryJournal) -> None:
    """The new container is never ready, and the old one is put back."""
    assert isinstance(target.runtime, DockerRuntime)
    journal.begin(BACK_SECONDS + 1.5)
    try:
        replace(target.runtime, journal, grace=2, ready=lambda: Readiness.ABSENT)
    except RemedyError:
        return


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

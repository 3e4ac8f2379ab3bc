"""A container replaced by a fresh one of the same configuration, in a way that can be undone.

A copy is made beside the old one and not started. The old one is stopped, loses its restart policy
and is renamed aside; the copy takes its name, is started, and has to pass the caller's probe. Each
step looks at the engine first and does what is missing. So whoever resumes a run that was killed
just runs it again, and so does whoever goes back: the old container exists until it is discarded,
and ``kept.facts`` says which it is and how it was. Old and new share their volumes and never run
together.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from recovery.deadline import Deadline
from recovery.errors import (
    DeadlineExceeded,
    NothingKept,
    OwnerChanged,
    RemedyError,
    RuntimeBusy,
    StillUnhealthy,
    WontStart,
)
from recovery.runtime import docker_copy, names, ourselves
from recovery.runtime.container import name_of, state_of
from recovery.runtime.docker_swap import NEVER, Swap, put_back, same_policy, stop
from recovery.runtime.engine import Engine, Inspected
from recovery.runtime.leftovers import settle
from recovery.runtime.process import PAUSE, Readiness, Ready, await_ready
from recovery.runtime.settings import DockerRuntime
from recovery.strategy import Journal, Kept

BACK_SECONDS = 5.0
"""What of a strategy's time is left for going back."""

START_SECONDS = 2.0
"""What is left for starting the new one when the old one uses up its grace."""

DISCARD_SECONDS = 30.0


def replace(runtime: DockerRuntime, journal: Journal, *, grace: float, ready: Ready) -> None:
    """Replace the container of a runtime; ``grace`` in seconds between TERM and KILL.

    Where the new one cannot be made or started, ends, or is never ready, the old one is back under
    its name when this raises, and runs if it ran: ``NotReplaceable``, ``NoSuchProcess``,
    ``OwnerChanged``, ``WontStop``, ``WontStart``, ``NeverReady``, ``RuntimeUnavailable``,
    ``DeadlineExceeded``, and ``WrongProcess`` where this worker lives in it. One that needs more
    time stays: ``StillUnhealthy``.
    """
    kept = None if journal.dry_run else journal.keep()
    with Engine.open(runtime.base_url, _leaving(BACK_SECONDS, journal)) as engine:
        replacement = _Replacement(engine, journal, kept, _begin(engine, runtime, journal, kept))
        replacement.run(grace, ready)


def undo(runtime: DockerRuntime, journal: Journal, kept: Kept) -> bool:
    """Bring the old container back and keep the new one, stopped; whether the old one runs now.

    Raises ``NothingKept`` where the old one is gone, ``OwnerChanged`` where the name belongs to a
    third: then what made that has to be undone first.
    """
    swap = Swap.from_facts(kept.facts)
    with Engine.open(runtime.base_url, journal.remaining) as engine:
        if swap is None or engine.find(swap.old) is None:
            raise NothingKept("the container from before is not there any more")
        owner = engine.find(swap.name)
        start = kept.facts.get("start") or swap.ran or (owner is not None and owner.runs)
        if not journal.dry_run:
            # Once the new one is stopped nobody could tell any more.
            kept.store(f"{swap.name} is being put back", start=start)
        within = Deadline(journal.remaining())
        put_back(engine, swap, journal.change, within=within, start=bool(start))
        if not journal.dry_run:
            _see_back(engine, swap, start=bool(start))
            kept.store(f"{swap.name} was put back; the one that replaced it is {swap.copy}")
    return bool(start)


def _see_back(engine: Engine, swap: Swap, *, start: bool) -> None:
    found = engine.get(swap.name)
    if found.id != swap.old:
        raise OwnerChanged(f"{swap.name} is {found.id[:12]} and not the container from before")
    if start and not found.runs:
        raise WontStart(f"{swap.name} was started and ended: {state_of(found).detail}")


def discard(runtime: DockerRuntime, kept: Kept) -> None:
    """Remove what is kept and not in use; raises ``RemedyError`` where the engine refuses.

    A container that runs or has been given another name is in use. Its anonymous volumes go with
    it only if the target's container is there and neither it nor any other uses them.
    """
    swap = Swap.from_facts(kept.facts)
    if swap is None:
        return
    with Engine.open(runtime.base_url, Deadline(DISCARD_SECONDS).remaining) as engine:
        has_owner = engine.find(swap.name) is not None
        for name in (swap.aside, swap.copy):
            found = engine.find(name)
            if found is not None and _is_discardable(found, swap):
                engine.remove(found.id, anonymous_volumes=has_owner)


def _is_discardable(found: Inspected, swap: Swap) -> bool:
    """Ours, and not in use; a copy that never started may have been made and not noted."""
    is_ours = found.id in {swap.old, swap.new} or found.status == "created"
    return is_ours and not found.runs


def _leaving(seconds: float, journal: Journal) -> Callable[[], float]:
    """The journal's deadline, earlier by ``seconds``."""

    def remaining() -> float:
        left = journal.remaining() - seconds
        if left <= 0:
            raise DeadlineExceeded(f"only the {seconds:g} s are left that going back may need")
        return left

    return remaining


def _begin(engine: Engine, runtime: DockerRuntime, journal: Journal, kept: Kept | None) -> Swap:
    """The replacement that a killed run began, else a new one, on disk before anything changes."""
    swap = Swap.from_facts(kept.facts) if kept is not None else None
    if swap is not None and _is_known(engine, swap):
        swap.refuse_strangers(engine.find(swap.name))
        return swap
    name = name_of(engine, runtime)
    left_over = settle(engine, name, journal.change)
    old = engine.get(left_over or name)
    ourselves.refuse(old)
    docker_copy.refuse_unless_replaceable(old)
    swap = Swap(
        name=name,
        short=names.short_id(journal.recovery_id),
        old=old.id,
        ran=old.runs or left_over is not None,
        restart_policy=old.restart_policy,
    )
    if kept is not None:
        kept.store(f"{name} is being replaced", **swap.as_facts())
    return swap


def _is_known(engine: Engine, swap: Swap) -> bool:
    return engine.find(swap.old) is not None or swap.find_new(engine) is not None


@dataclass(slots=True)
class _Replacement:
    """One run of a replacement, from where the last one left it; ``kept`` is None in a dry run."""

    engine: Engine
    journal: Journal
    kept: Kept | None
    swap: Swap

    def run(self, grace: float, ready: Ready) -> None:
        try:
            self._forward(grace)
            readiness = self._await(ready)
        except RemedyError as error:
            problem = self._back()
            if problem is not None:
                raise type(error)(f"{error}; and {problem}", error.facts) from error
            raise
        except BaseException:
            self._back()
            raise
        self._store(f"the container from before is {self.swap.aside}")
        if readiness is Readiness.COMING:
            raise StillUnhealthy(f"{self.swap.name} is new and needs more time; nothing is undone")

    def _forward(self, grace: float) -> None:
        swap = self.swap
        found = swap.find_new(self.engine)
        if found is None or found.id != swap.new:
            self.journal.change(f"a copy of {swap.name} made: {swap.copy}", self._make)
        self._take_aside(grace)
        if found is None or found.name != swap.name:
            self.journal.change(f"{swap.copy} renamed to {swap.name}", self._rename_new)
        if found is not None and not same_policy(found.restart_policy, swap.restart_policy):
            # A killed run had begun to go back.
            self.journal.change(f"{swap.name} has its restart policy again", self._set_policy)
        self.journal.change(f"{swap.name} started", self._start)

    def _make(self) -> None:
        """Noted only when it is complete: one that is found and not noted is made again."""
        old = self.engine.get(self.swap.old)
        document = docker_copy.document(old, self.swap.restart_policy, self.engine)
        new = self._create(document)
        docker_copy.connect_all(old, new, self.engine)
        self.swap = dataclasses.replace(self.swap, new=new)
        self._store(f"{self.swap.name} is being replaced")

    def _create(self, document: dict[str, Any]) -> str:
        """The engine may still be at work on what a dead worker asked for: then again."""
        while True:
            try:
                half_made = self.engine.find(self.swap.copy)
                if half_made is not None:
                    self.engine.remove(half_made.id)
                return self.engine.create(self.swap.copy, document)
            except RuntimeBusy:
                time.sleep(min(PAUSE, self.journal.remaining()))

    def _take_aside(self, grace: float) -> None:
        old, swap, engine = self.engine.find(self.swap.old), self.swap, self.engine
        if old is None:
            return
        if old.runs:
            left = self.journal.remaining() - BACK_SECONDS - START_SECONDS
            allowed = max(min(grace, left), 1.0)
            self.journal.change(
                f"{swap.name} stopped", lambda: stop(engine, old.id, allowed), grace_s=allowed
            )
        if not same_policy(old.restart_policy, NEVER):
            self.journal.change(
                f"{swap.name} kept from restarting by itself",
                lambda: engine.set_restart_policy(old.id, NEVER),
            )
        if old.name != swap.aside:
            self.journal.change(
                f"{old.name} renamed to {swap.aside}", lambda: engine.rename(old.id, swap.aside)
            )

    def _rename_new(self) -> None:
        self.engine.rename(self._new(), self.swap.name)

    def _set_policy(self) -> None:
        self.engine.set_restart_policy(self._new(), self.swap.restart_policy)

    def _start(self) -> None:
        self.engine.start(self._new())

    def _new(self) -> str:
        if self.swap.new is None:
            raise NothingKept(f"the copy of {self.swap.name} is not noted")
        return self.swap.new

    def _await(self, ready: Ready) -> Readiness:
        if self.journal.dry_run:
            return Readiness.READY
        within = Deadline(self.journal.remaining() - BACK_SECONDS)
        name, new = self.swap.name, self._new()
        # A last look must not make one that is coming seem to have failed.
        engine = self.engine.within(self.journal.remaining)
        found = await_ready(ready, lambda: state_of(engine.get(new)), within, name)
        self.journal.note(f"{name} is {found.value}", container=new[:12])
        return found

    def _back(self) -> str | None:
        """Go back, in time of its own; what went wrong with that, if something did."""
        if self.journal.dry_run:
            return None
        within = Deadline(BACK_SECONDS)
        engine = self.engine.within(within.remaining)
        try:
            put_back(engine, self.swap, self._act, within=within, start=self.swap.ran)
            new = self.swap.find_new(engine)
            if new is not None and new.name == self.swap.copy:
                engine.remove(new.id)
            self.swap = dataclasses.replace(self.swap, new=None)
            self._store(f"nothing: {self.swap.name} was put back")
        except RemedyError as error:
            self.journal.note("the container from before is not back", why=str(error))
            return f"the container from before is not back: {error}"
        return None

    def _act(self, text: str, action: Callable[[], None]) -> None:
        """Like the journal's ``change``, which refuses once the deadline has passed."""
        action()
        self.journal.note(text)

    def _store(self, summary: str) -> None:
        if self.kept is not None:
            self.kept.store(summary, **self.swap.as_facts())

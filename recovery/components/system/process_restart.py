"""``system.process_restart``: stop and start configured processes that do not respond."""

from __future__ import annotations

import time
from collections.abc import Mapping

from recovery.components.system import leftovers, processes, responding
from recovery.components.system.named import NamedProcess
from recovery.components.system.processes import Life
from recovery.components.system.target import HostTarget
from recovery.deadline import Deadline
from recovery.errors import (
    DeadlineExceeded,
    NoSuchProcess,
    NotConfigured,
    NothingKept,
    RemedyError,
    WontStart,
    WontStop,
    WrongProcess,
)
from recovery.runtime import Readiness, await_ready, manage, programs
from recovery.runtime.process import PAUSE, ProcessState
from recovery.strategy import Duration, Journal, Parameters, Scope, strategy

QUESTION_SECONDS = 1.0
"""How long a process may take to answer one question."""

STOPPED = "stopped"
"""The fact under which the lives are kept that this recovery ended, by the process's key."""


class ProcessRestart(Parameters):
    """``stop_grace``: seconds between TERM and KILL. ``steady``: how long the new process has to
    live until it counts.
    """

    stop_grace: Duration = 5.0
    steady: Duration = 1.0


class OneProcess(Scope):
    """``process``: the key of the one to restart, whether or not it responds."""

    process: str | None = None


@strategy(
    component="system",
    summary="Restart configured processes that do not respond.",
    parameters=ProcessRestart,
    scope=OneProcess,
    destructive=True,
    requires_approval=True,
    timeout_seconds=20.0,
)
def process_restart(target: HostTarget, parameters: ProcessRestart, journal: Journal) -> None:
    """Raises ``NotConfigured`` where the policy lacks the process or its ``runtime``, and what
    ``recovery.runtime`` raises. One that fails does not keep the others from being tried.
    """
    failures = []
    for key, named in _chosen(target, journal).items():
        try:
            _Restart(key, named, parameters, journal).run()
        except DeadlineExceeded:
            raise
        except RemedyError as error:
            journal.note(f"{key} is not restarted", why=error.message)
            failures.append(error)
    if failures:
        raise failures[0]


def _chosen(target: HostTarget, journal: Journal) -> Mapping[str, NamedProcess]:
    """The one that was asked for, else those that do not respond."""
    asked = journal.scope.process if isinstance(journal.scope, OneProcess) else None
    if asked is not None:
        if asked not in target.processes:
            known = ", ".join(sorted(target.processes)) or "none"
            raise NotConfigured(
                f"the target names no process {asked[:80]!r}; known: {known}",
                {"key": "processes"},
            )
        return {asked: target.processes[asked]}
    found = {
        key: named
        for key, named in target.processes.items()
        if (why := _complaint(key, named, journal)) and _is_noted(why, journal)
    }
    if not found:
        journal.note("every configured process responds; context.process names one all the same")
    return found


def _is_noted(why: str, journal: Journal) -> bool:
    journal.note(why)
    return True


def _complaint(key: str, named: NamedProcess, journal: Journal) -> str:
    """What speaks against its responding; empty where nothing does."""
    (running,) = processes.find([named])
    found = responding.complaints(
        key, named, running, lambda: min(QUESTION_SECONDS, journal.remaining())
    )
    return next((text for _, text in found), "")


class _Restart:
    """One process, ended for sure and started anew. Killed anywhere, the next run ends the work."""

    def __init__(
        self, key: str, named: NamedProcess, parameters: ProcessRestart, journal: Journal
    ) -> None:
        if named.runtime is None:
            raise NotConfigured(
                f"the policy does not say how {key} is run: add the key runtime to it",
                {"key": f"processes.{key}.runtime"},
            )
        self.key = key
        self.named = named
        self.parameters = parameters
        self.journal = journal
        self.process = manage(named.runtime, journal.remaining)

    def run(self) -> None:
        old = processes.lives(self.named)
        if self._is_new(old):
            # The one that was killed in the middle got as far as this.
            self.journal.note(f"{self.key} was started by this recovery already")
        else:
            was = self._check(old)
            self._remember(old)
            self._stop(old, was_running=was.running)
            self._start(may_be_back=bool(old))
        if not self.journal.dry_run:
            self._see_new()

    def _check(self, old: frozenset[Life]) -> ProcessState:
        """Nothing is stopped that could not be started again, or is not what is meant."""
        found = self.process.inspect()
        if not found.exists:
            raise NoSuchProcess(found.detail)
        self.journal.note(f"{self.key} found", state=found.detail, pid=found.pid)
        if found.pid and old and not processes.are_of(old, found.pid):
            raise WrongProcess(
                f"the runtime of {self.key} runs process {found.pid}, and the policy finds"
                f" {processes.shown(old)}: they are not the same"
            )
        if found.carries_us or processes.carry_us([*map(processes.pid_of, old), found.pid or 0]):
            raise WrongProcess(
                f"{self.key} carries out this recovery and would not be there to start again:"
                " another worker of this host has to do it"
            )
        if self.named.check is not None:
            answer = programs.run(self.named.check, self.journal.remaining)
            if not answer.is_good:
                raise WontStart(
                    f"{self.key} is left as it is: its check ended with exit code {answer.code}"
                )
        return found

    def _stop(self, old: frozenset[Life], *, was_running: bool) -> None:
        grace = self.parameters.stop_grace
        self.journal.change(f"{self.key} stopped", lambda: self.process.stop(grace), grace_s=grace)
        if self.journal.dry_run:
            return
        try:
            leftovers.end(self.key, self.named, old, grace, self.journal)
        except WontStop:
            if was_running:
                self.journal.change(f"{self.key} started again", self.process.start)
            raise

    def _start(self, *, may_be_back: bool) -> None:
        """Twice where it ran before: what refuses once may have been about to let go."""
        try:
            self.journal.change(f"{self.key} started", self.process.start)
        except WontStart as error:
            if not may_be_back:
                raise
            self.journal.note(f"{self.key} is tried once more", why=error.message)
            time.sleep(min(1.0, self.journal.remaining()))
            self.journal.change(f"{self.key} started", self.process.start)

    def _see_new(self) -> None:
        within = Deadline(self.journal.remaining())
        await_ready(self._ready, self.process.inspect, within, self.key)
        pids = processes.shown(self._see_steady())
        self.journal.note(f"{self.key} runs anew and responds", pids=pids)

    def _ready(self) -> Readiness:
        responds = not _complaint(self.key, self.named, self.journal)
        return Readiness.READY if responds else Readiness.ABSENT

    def _see_steady(self) -> frozenset[Life]:
        """What ends at once would be found dead by the next probe, and was no success."""
        first, since = processes.lives(self.named), time.monotonic()
        while time.monotonic() - since < self.parameters.steady:
            time.sleep(min(PAUSE, self.journal.remaining()))
            now = processes.lives(self.named)
            if not now:
                raise WontStart(f"{self.key} was started and ended at once")
            if now.isdisjoint(first):
                first, since = now, time.monotonic()
        return first

    def _is_new(self, lives: frozenset[Life]) -> bool:
        """Whether all that runs is younger than what this recovery ended."""
        if not lives or self.journal.dry_run:
            return False
        try:
            ended = self.journal.keep().facts.get(STOPPED, {}).get(self.key)
        except NothingKept:
            return False
        return ended is not None and lives.isdisjoint(ended)

    def _remember(self, old: frozenset[Life]) -> None:
        if self.journal.dry_run:
            return
        try:
            kept = self.journal.keep()
            stopped = {**kept.facts.get(STOPPED, {}), self.key: sorted(old)}
            kept.store(f"restarted: {', '.join(stopped)}; nothing to bring back", stopped=stopped)
        except NothingKept as error:
            # On a full disk a restart that is killed may be done twice, which is harmless.
            self.journal.note("not kept which process was restarted", why=error.message)

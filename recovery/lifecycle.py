"""What happens around every remedy: claim, probe, act, probe, conclude.

A recovery is a success only when a probe of the real target says so. An undo goes the same way; it
is a success when what was removed is verified to be back, whatever that does to the target. A
remedy that leads people around its target succeeds when the other road answers.
Everything here may be killed at any line: what must not happen twice is written down before and
after it happens, and whoever resumes the recovery reads that first.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from recovery import confirmation, evidence, holdings, observations, records
from recovery import lease as leases
from recovery.conclusion import Conclusion, conclude, degrade
from recovery.config import Environment
from recovery.deadline import Deadline
from recovery.errors import (
    ControlPlaneUnavailable,
    DeadlineExceeded,
    LeaseLost,
    NotKept,
    RemedyCrashed,
    RemedyError,
    StillUnhealthy,
)
from recovery.events import Assignment, Outcome, ProbeReport, Result, Stage
from recovery.finding import find_component, find_probe, find_proof, find_undo
from recovery.journal import RecordingJournal, Told, tell_nobody
from recovery.keeping import KeptFolder, KeptState
from recovery.memory import TargetMemory
from recovery.messages import FIGURES
from recovery.strategy import Scope

if TYPE_CHECKING:
    from recovery.config import Policy, StrategyPolicy
    from recovery.controlplane import ControlPlane
    from recovery.strategy import Probe, TargetModel

CONCLUDE_SECONDS = 20.0
"""How long a conclusion is retried while the control plane is away."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryLater:
    """The attempt failed in a way that may pass: try again after ``countdown`` seconds."""

    countdown: float
    error: RemedyError
    host: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Nothing was done: another worker has this recovery, or it is over."""

    reason: str


Ending = Outcome | RetryLater | Skipped


def run(
    control: ControlPlane,
    policy: Policy,
    assignment: Assignment,
    holder: str,
    *,
    stopped_by: tuple[type[Exception], ...] = (),
    told: Told = tell_nobody,
) -> Ending:
    """Run one attempt of an admitted recovery; raises ``ControlPlaneUnavailable``.

    ``stopped_by``: what the caller's time limit raises inside a remedy that overstays. ``told``
    hears of the progress of a long one.
    """
    claimed = leases.claim(control, assignment, holder)
    if isinstance(claimed, leases.Claim):
        return Skipped(reason=claimed.value)
    record = records.load(control, assignment.recovery_id)
    strategy = policy.strategy(assignment.target.component, record.strategy)
    with (
        structlog.contextvars.bound_contextvars(
            recovery_id=record.id, target=str(record.target), strategy=strategy.name
        ),
        leases.heartbeat(claimed) as lost,
    ):
        attempt = _Attempt(control, policy, record, strategy, claimed, lost, stopped_by, told)
        try:
            return attempt.run()
        except LeaseLost as error:
            log.warning("lease lost; whoever holds it now concludes", error=str(error))
            return Skipped(reason=error.code)


class _Attempt:
    """One attempt of one claimed recovery."""

    def __init__(  # noqa: PLR0917 - called in one place, in the order of use
        self,
        control: ControlPlane,
        policy: Policy,
        record: records.Recovery,
        strategy: StrategyPolicy,
        lease: leases.Lease,
        lost: threading.Event,
        stopped_by: tuple[type[Exception], ...],
        told: Told,
    ) -> None:
        self.control = control
        self.policy = policy
        self.record = record
        self.strategy = strategy
        self.lease = lease
        self.lost = lost
        self.stopped_by = stopped_by
        memory = TargetMemory(control, record.target, recovery_id=record.id, fence=lease.fence)
        self.target: TargetModel = policy.target(record.target).reminded(memory)
        self.told = told
        self.probe = find_probe(record.target.component)
        self.proof = find_proof(record.target.component, strategy.name)
        self.shelf = holdings.shelf(control, policy, Environment.read())
        # A remedy that was not asked to say so is taken to have changed something.
        self.has_changed = True
        self.attempts = record.attempts
        self.before = record.before
        self._spent_before = _seconds_between(record.started_ms, lease.claimed_ms)
        self._began = time.monotonic()
        spent_of_budget = _seconds_between(record.budget_ms, lease.claimed_ms)
        self.deadline = Deadline(strategy.timeout_seconds - spent_of_budget)

    def run(self) -> Ending:
        found = self._observe()
        if self.record.event.undo_of is not None:
            return self._undo()
        if found.healthy and not self._must_act():
            acted = self.record.stage is not None and self.attempts > 0
            return self._conclude(Result.RECOVERED if acted else Result.NOT_NEEDED, after=found)
        error: RemedyError | None = None
        if self.record.stage is not Stage.ACTED:
            if (doubt := self._doubt(found)) is not None:
                return doubt
            error = self._act()
            if self.record.dry_run:
                # One that could not be gone through is no failure of the target: nothing was tried.
                return self._conclude(Result.DRY_RUN, error)
        return self._judge(error)

    def _undo(self) -> Ending:
        error = None if self.record.stage is Stage.ACTED else self._act()
        after = self._probe()
        if self.record.dry_run:
            return self._conclude(Result.DRY_RUN if error is None else Result.NOT_UNDONE, error)
        if error is None:
            return self._conclude(Result.UNDONE, after=after)
        return self._retry(error) or self._conclude(Result.NOT_UNDONE, error, after)

    def _observe(self) -> ProbeReport:
        """Probe before acting; the first report of a recovery is the one it is measured against."""
        found = self._probe()
        if self.before is None:
            self.before = found
            self.lease.write({"before": found.as_dict(), "stage": Stage.CLAIMED.value})
            if not found.healthy:
                evidence.collect(
                    self.control, self.policy, self.record, found, timeout=self._probe_timeout()
                )
        return found

    def _must_act(self) -> bool:
        """A healthy target is left alone, unless a person insists or only wants a rehearsal, or
        the remedy finds out by itself what the probe cannot see."""
        if self.record.stage is Stage.ACTED:
            return False
        insisted = self.record.event.force or self.record.forced or self.record.dry_run
        # Where people were led around the target already, they are led on: nothing brings them
        # back but health that lasts.
        begun = self.proof is not None and self.attempts > 0
        return insisted or begun or self.strategy.declaration.judges_itself

    def _doubt(self, found: ProbeReport) -> Outcome | Skipped | None:
        """An ending without harm, where two looks do not agree that what can harm is needed."""
        if not confirmation.is_wanted(self.record, self.strategy):
            return None
        if not observations.is_seen_failing(self.control, self.record.target):
            time.sleep(min(confirmation.PAUSE_SECONDS, self.deadline.left()))
            found = self._probe()
        if found.healthy:
            return self._conclude(Result.NOT_NEEDED, after=found)
        error = confirmation.contradiction(self.record, self.strategy, found)
        return self._conclude(Result.FAILED, error, found) if error else None

    def _act(self) -> RemedyError | None:
        self.attempts += 1
        self.lease.write({"stage": Stage.ACTING.value, "attempts": self.attempts})
        if self.lost.is_set():
            raise LeaseLost("the lease was lost before the remedy began")
        self._degrade()
        error = self._perform()
        try:
            self.lease.write({"stage": Stage.ACTED.value if error is None else Stage.CLAIMED.value})
        except ControlPlaneUnavailable as away:
            log.warning("stage not stored; whoever resumes will probe first", error=str(away))
        return error

    def _degrade(self) -> None:
        if not self.strategy.declaration.degrades or self.record.dry_run:
            return
        try:
            degrade(self.control, self.policy, self.record)
        except ControlPlaneUnavailable as away:
            log.warning("applications do not hear of it", error=str(away))

    def _perform(self) -> RemedyError | None:
        full_name = self.strategy.declaration.full_name
        with ExitStack() as folders:
            try:
                if self.record.event.undo_of is not None:
                    self._bring_back(self.record.event.undo_of, folders)
                else:
                    self._remedy(folders)
            except RemedyError as error:
                return error
            except LeaseLost:
                raise
            except self.stopped_by:
                return DeadlineExceeded(f"stopped at its {self.strategy.timeout_seconds:g} s")
            except Exception as error:
                log.exception("remedy crashed")
                return RemedyCrashed(f"{type(error).__name__} in {full_name}")
        return None

    def _remedy(self, folders: ExitStack) -> None:
        declaration = self.strategy.declaration
        if declaration.remedy is None:
            raise RemedyError(f"this release cannot run {declaration.full_name}")
        context = {k: v for k, v in self.record.event.context.items() if k != FIGURES}
        journal = self._journal(folders, declaration.scope.model_validate(context))
        self.has_changed = False
        try:
            declaration.remedy(self.target, self.strategy.parameters, journal)
        finally:
            self.has_changed = journal.has_changed

    def _bring_back(self, undo_of: str, folders: ExitStack) -> None:
        undo = find_undo(self.record.target.component, self.strategy.name)
        if undo is None:
            raise RemedyError(f"{self.strategy.declaration.full_name} cannot be undone")
        kept = self.shelf.open(undo_of)
        folders.callback(kept.close)
        if kept.state is not KeptState.AVAILABLE:
            # It was this one, when it was killed before it could say so.
            if kept.undone_by == self.record.id:
                return
            by = f" by {kept.undone_by}" if kept.undone_by else ""
            raise NotKept(f"recovery {undo_of} was {kept.state.value} already{by}")
        undo(self.target, self.strategy.parameters, self._journal(folders, Scope()), kept)
        if not self.record.dry_run:
            kept.mark(KeptState.UNDONE, self.record.id)

    def _journal(self, folders: ExitStack, scope: Scope) -> RecordingJournal:
        return RecordingJournal(
            self.control,
            self.record.id,
            self.record.target,
            deadline=self.deadline,
            keeper=lambda: self._keep(folders),
            scope=scope,
            dry_run=self.record.dry_run,
            overwrite=self.record.event.overwrite,
            told=self.told,
        )

    def _keep(self, folders: ExitStack) -> KeptFolder:
        """Open this recovery's folder, and bind the recovery to the host that has it."""
        kept = self.shelf.keep(
            self.record.id,
            target=str(self.record.target),
            strategy=self.strategy.name,
            now_ms=self.lease.claimed_ms,
        )
        folders.callback(kept.close)
        try:
            self.lease.write({"host": self.shelf.host})
        except ControlPlaneUnavailable as away:
            log.warning("host not stored", error=str(away))
        return kept

    def _judge(self, error: RemedyError | None) -> Ending:
        """Ask the target itself; a remedy that reported no error has proved nothing yet."""
        after = self._probe()
        if self.proof is not None and error is None:
            return self._judge_detour(after, self._look(self.proof))
        if after.healthy and error is None:
            idle = self.record.attempts == 0 and not self.has_changed
            was_healthy = self.before is not None and self.before.healthy
            result = Result.NOT_NEEDED if idle and was_healthy else Result.RECOVERED
            return self._conclude(result, after=after)
        if error is None:
            error = StillUnhealthy(f"the probe still finds {after.failure_type}: {after.summary}")
        if self.deadline.left() <= 0 and not isinstance(error, DeadlineExceeded):
            error = DeadlineExceeded(f"{error} ({self.strategy.timeout_seconds:g} s are over)")
        return self._retry(error) or self._conclude(Result.FAILED, error, after)

    def _judge_detour(self, after: ProbeReport, proof: ProbeReport) -> Ending:
        """Success is an answer on the other road; of the target nothing is claimed."""
        if proof.healthy:
            return self._conclude(Result.REROUTED, after=after, proof=proof)
        error = StillUnhealthy(f"the other road has {proof.failure_type}: {proof.summary}")
        return self._retry(error) or self._conclude(Result.FAILED, error, after, proof)

    def _retry(self, error: RemedyError) -> RetryLater | None:
        """Hold the target for another attempt where one is left and may help."""
        countdown = self._countdown()
        may_retry = error.transient and self.attempts <= self.strategy.max_retries
        if not may_retry or countdown >= self.deadline.left():
            return None
        self.lease.write({"stage": Stage.CLAIMED.value})
        self.lease.await_retry(countdown)
        host = records.load(self.control, self.record.id).bound_to
        return RetryLater(countdown=countdown, error=error, host=host)

    def _countdown(self) -> float:
        factor: float = self.strategy.backoff_multiplier ** (self.attempts - 1)
        return self.strategy.backoff_seconds * factor

    def _conclude(
        self,
        result: Result,
        error: RemedyError | None = None,
        after: ProbeReport | None = None,
        proof: ProbeReport | None = None,
    ) -> Outcome | Skipped:
        outcome = Outcome(
            result=result,
            error=error.code if error else None,
            detail=str(error) if error else "",
            before=self.before,
            after=after,
            proof=proof,
            needs_person=error is not None and error.needs_person,
            attempts=self.attempts,
            duration=self._elapsed(),
        )
        try:
            answer = self._say(outcome)
        except self.stopped_by:
            # The time limit was meant for a remedy; it fires once, and the outcome is known.
            answer = self._say(outcome)
        if answer is Conclusion.LOST:
            raise LeaseLost("the recovery was concluded by its new holder")
        log.info(_sentence(self.record, outcome), result=result.value)
        observations.note_outcome(self.control, self.policy, self.record.target, outcome)
        return outcome

    def _say(self, outcome: Outcome) -> Conclusion:
        insist = Retrying(
            retry=retry_if_exception_type(ControlPlaneUnavailable),
            wait=wait_exponential(multiplier=0.1, max=2),
            stop=stop_after_delay(CONCLUDE_SECONDS),
            reraise=True,
        )
        answer: Conclusion = insist(
            conclude, self.control, self.policy, self.record, outcome, self.lease.fence
        )
        return answer

    def _probe(self) -> ProbeReport:
        return self._look(self.probe)

    def _look(self, probe: Probe) -> ProbeReport:
        try:
            return self._ask(probe)
        except self.stopped_by:
            # The time limit was meant for a remedy; it fires once, and an answer is still wanted.
            return self._ask(probe)

    def _ask(self, probe: Probe) -> ProbeReport:
        """What cannot be probed is not healthy: a probe's own crash proves nothing."""
        try:
            return probe(self.target, self._probe_timeout())
        except self.stopped_by:
            raise
        except Exception as error:
            log.exception("probe crashed")
            return ProbeReport(
                healthy=False, failure_type="probe_crashed", summary=type(error).__name__
            )

    def _probe_timeout(self) -> float:
        """Proof is still wanted when the deadline has passed, but it may not take long."""
        longest = find_component(self.record.target.component).probe_seconds
        return min(longest, max(self.deadline.left(), 0.5))

    def _elapsed(self) -> float:
        return self._spent_before + time.monotonic() - self._began


def _seconds_between(earlier_ms: int | None, later_ms: int) -> float:
    return 0.0 if earlier_ms is None else max(later_ms - earlier_ms, 0) / 1000


def _sentence(record: records.Recovery, outcome: Outcome) -> str:
    """What happened, to what, why, how long it took and which figure proves it: one sentence."""
    event = record.event
    undo = f"the undo of {event.undo_of}" if event.undo_of else None
    reason = undo or event.failure_type or f"asked for by {event.by or 'a person'}"
    proof = outcome.after or outcome.before
    found = f"; the probe finds it {proof.failure_type or 'healthy'}" if proof else ""
    figures = f" ({proof.summary})" if proof and proof.summary else ""
    other = f"; past it: {outcome.proof.summary}" if outcome.proof else ""
    return (
        f"{record.target}: {outcome.result.value} by {record.strategy}"
        f" after {outcome.duration:.2f} s and {outcome.attempts} attempts,"
        f" because of {reason}{found}{figures}{other}"
    )

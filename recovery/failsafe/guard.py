"""The guard of one host: probes and repairs its own targets while the control plane is away.

It needs no broker and no other process. It never runs what is destructive, needs approval, or is
not declared safe without coordination, and it obeys the policy's limits by its own ledger. Once the
control plane is back, it tells what it did and waits again.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import structlog

from recovery.controlplane import ControlPlane, reachable
from recovery.diary import Diary
from recovery.errors import (
    ControlPlaneUnavailable,
    DeadlineExceeded,
    RemedyCrashed,
    RemedyError,
    SetupError,
    StillUnhealthy,
)
from recovery.events import Outcome, ProbeReport, Result, TargetRef
from recovery.failsafe import foundation
from recovery.failsafe.ledger import HOUR_MS, Entry, Ledger
from recovery.failsafe.merging import merge
from recovery.failsafe.reserve import Reserve
from recovery.finding import find_component, find_probe
from recovery.instance import only_one
from recovery.selection import ladder, select
from recovery.strategy import FailureType

if TYPE_CHECKING:
    from recovery.config import Environment, Policy, StrategyPolicy

PROBE_SECONDS = 2.0
LOCK = "failsafe"
STAND_BY_SECONDS = 10.0
CONFIRMATIONS = 2
"""How often in a row a target must be found failing: there is nobody else to ask."""

log = structlog.get_logger()


class Guard:
    """One host's guard. ``tick`` is called every ``failsafe.interval_seconds``."""

    def __init__(self, environment: Environment, policy: Policy) -> None:
        self.environment = environment
        self.policy = policy
        self.control = ControlPlane.connect(environment)
        self.ledger = Ledger(environment.state_dir / "failsafe" / "ledger.jsonl")
        self.away_since: float | None = None
        self._failing: dict[TargetRef, int] = {}

    @property
    def is_alone(self) -> bool:
        """True once the control plane has been away for ``failsafe.after_seconds``."""
        if self.away_since is None:
            return False
        return time.monotonic() - self.away_since >= self.policy.failsafe.after_seconds

    def own_targets(self) -> tuple[TargetRef, ...]:
        """Those bound to this host, and the unbound ones where the policy gives them to it."""
        host = self.environment.host
        takes_unbound = self.environment.is_embedded or self.policy.failsafe.unbound_host == host
        return tuple(
            ref
            for ref in self.policy.target_refs()
            if find_component(ref.component).probe
            and (bound := self.policy.target(ref).host or (host if takes_unbound else None)) == host
            and bound is not None
        )

    def tick(self) -> None:
        """Look once; merges when the control plane is there, repairs when it is not."""
        try:
            self._see_control_plane()
        except ControlPlaneUnavailable as error:
            self._be_without(error)
            return
        if self.away_since is not None:
            log.warning("control plane is back")
            self.away_since = None
            self._failing.clear()
        if self.ledger.unmerged:
            merged = merge(self.control, self.policy, self.ledger)
            log.warning("told the control plane what was done without it", recoveries=merged)
        self.ledger.forget(_now_ms())

    def _see_control_plane(self) -> None:
        """It must take a write: a full or read-only Redis cannot admit a recovery either."""
        with reachable():
            self.control.redis.set(
                self.control.key("failsafe", self.environment.host), _now_ms(), ex=60
            )

    def _be_without(self, error: ControlPlaneUnavailable) -> None:
        if self.away_since is None:
            self.away_since = time.monotonic()
            log.error("control plane is away", why=error.message)
        if not self.is_alone:
            return
        if self._mend_foundation():
            return
        for ref in self.own_targets():
            self._look_after(ref)

    def _mend_foundation(self) -> bool:
        """Restart the control Redis where it is ours to restart; True where it was tried."""
        ref = foundation.own_target(self.policy, self.environment)
        if ref is None:
            return False
        found = foundation.probe(self.control)
        if found.healthy or self._refusal(ref):
            return False
        self._record(
            ref,
            foundation.STRATEGY,
            found,
            act=lambda _: self._attempt(lambda: foundation.restart(self.policy, self.control)),
            look=lambda: foundation.probe(self.control),
        )
        return True

    def _look_after(self, ref: TargetRef) -> None:
        found = self._probe(ref)
        if found.healthy or found.failure_type is None:
            self._failing.pop(ref, None)
            return
        self._failing[ref] = self._failing.get(ref, 0) + 1
        if self._failing[ref] < CONFIRMATIONS:
            return
        strategy = self._choose(ref, found.failure_type)
        if strategy is None:
            log.error(
                "failing, and nothing may be done alone", target=str(ref), found=found.summary
            )
            return
        refusal = self._refusal(ref)
        if refusal:
            log.error("failing, and refused", target=str(ref), why=refusal, found=found.summary)
            return
        self._repair(ref, strategy, found)

    def _choose(self, ref: TargetRef, failure_type: str) -> StrategyPolicy | None:
        """The rung that is due, if it may run without anybody's leave."""
        known = find_component(ref.component).failure_type(failure_type)
        failure = known or FailureType(name=failure_type, summary="")
        rungs = ladder(self.policy.component(ref.component).strategies, failure)
        if not rungs:
            return None
        now_ms = _now_ms()
        due = select(
            rungs,
            failure.name,
            self.ledger.past(ref, now_ms),
            now_ms=now_ms,
            effective_seconds=self.policy.limits(ref).effective_seconds,
        )
        may_run = (
            due.declaration.safe_alone
            and not due.declaration.destructive
            and due.auto_trigger
            and not due.requires_approval
        )
        return due if may_run else None

    def _refusal(self, ref: TargetRef) -> str | None:
        known = ref.component != foundation.COMPONENT
        limits = self.policy.limits(ref) if known else self.policy.everybodys_limits
        now_ms = _now_ms()
        past = self.ledger.past(ref, now_ms)
        if past and past[0].result is Result.FAILED:
            left = past[0].at_ms / 1000 + limits.cooldown_seconds - now_ms / 1000
            if left > 0:
                return f"cooldown: {left:.0f} s left"
        attempts = sum(outcome.at_ms > now_ms - HOUR_MS for outcome in past)
        if attempts >= limits.max_attempts_per_hour:
            return f"limit: {attempts} recoveries in the last hour"
        return None

    def _repair(self, ref: TargetRef, strategy: StrategyPolicy, found: ProbeReport) -> None:
        self._record(
            ref,
            strategy.name,
            found,
            act=lambda entry_id: self._act(ref, strategy, entry_id),
            look=lambda: self._probe(ref),
        )

    def _record(
        self,
        ref: TargetRef,
        strategy: str,
        found: ProbeReport,
        *,
        act: Callable[[str], RemedyError | None],
        look: Callable[[], ProbeReport],
    ) -> None:
        """Act between two lines of the ledger, and believe only what the second look says."""
        entry = Entry(
            id=str(uuid4()),
            target=ref,
            strategy=strategy,
            failure_type=found.failure_type or "",
            begun_ms=_now_ms(),
            before=found,
            holder=f"{self.environment.host}:{os.getpid()}",
        )
        self.ledger.begin(entry)
        began = time.monotonic()
        error = act(entry.id)
        after = look()
        if error is None and not after.healthy:
            error = StillUnhealthy(f"the probe still finds {after.failure_type}: {after.summary}")
        outcome = Outcome(
            result=Result.RECOVERED if error is None else Result.FAILED,
            error=error.code if error else None,
            detail=str(error) if error else "",
            before=found,
            after=after,
            attempts=1,
            duration=time.monotonic() - began,
        )
        self.ledger.end(entry.id, outcome)
        self._failing.pop(ref, None)
        log.warning(
            "recovery without the control plane",
            id=entry.id,
            target=str(ref),
            strategy=strategy,
            result=outcome.result.value,
            detail=outcome.detail,
            before=found.summary,
            after=after.summary,
            seconds=round(outcome.duration, 3),
        )

    def _act(self, ref: TargetRef, strategy: StrategyPolicy, entry_id: str) -> RemedyError | None:
        declaration = strategy.declaration
        diary = Diary(entry_id, declaration.scope(), strategy.timeout_seconds, self.control.prefix)
        remedy = declaration.remedy
        if remedy is None:
            return RemedyError(f"this release cannot run {declaration.full_name}")
        with time_limit(strategy.timeout_seconds + 1.0):
            return self._attempt(
                lambda: remedy(self.policy.target(ref), strategy.parameters, diary)
            )

    def _attempt(self, action: Callable[[], None]) -> RemedyError | None:
        try:
            action()
        except RemedyError as error:
            return error
        except Exception as error:
            log.exception("remedy crashed")
            return RemedyCrashed(f"{type(error).__name__} in a remedy without the control plane")
        return None

    def _probe(self, ref: TargetRef) -> ProbeReport:
        try:
            return find_probe(ref.component)(self.policy.target(ref), PROBE_SECONDS)
        except Exception as error:
            log.exception("probe crashed")
            summary = type(error).__name__
            return ProbeReport(healthy=False, failure_type=None, summary=summary)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise ``DeadlineExceeded`` in the main thread when a remedy overstays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise DeadlineExceeded(f"stopped after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(environment: Environment, policy: Policy) -> None:
    """Watch until SIGTERM or SIGINT; stands by while another guard of this host does."""
    stop = threading.Event()

    def ask_to_stop(*_: Any) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    while not stop.is_set():
        try:
            with only_one(environment.state_dir, LOCK):
                _watch(environment, policy, stop)
        except SetupError:
            # One guard a host is enough; this one stands by in case that one ends.
            stop.wait(STAND_BY_SECONDS)


def _watch(environment: Environment, policy: Policy, stop: threading.Event) -> None:
    guard = Guard(environment, policy)
    reserve = Reserve(environment.state_dir, int(policy.failsafe.reserve_mb * 1e6))
    reserve.tend()
    log.info("guard watches", targets=[str(ref) for ref in guard.own_targets()])
    while not stop.wait(policy.failsafe.interval_seconds):
        # First, because it may be what brings the control plane back.
        reserve.tend()
        guard.tick()


def _now_ms() -> int:
    return int(time.time() * 1000)

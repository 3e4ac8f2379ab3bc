"""The lease of a running recovery: taken, renewed by a heartbeat, fencing what is written."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import structlog

from recovery.controlplane import reachable
from recovery.errors import ControlPlaneUnavailable, LeaseLost
from recovery.events import Assignment, State

if TYPE_CHECKING:
    from recovery.controlplane import ControlPlane

TTL_SECONDS = 4.0
"""A holder silent for this long is taken for dead. Four missed heartbeats."""

HEARTBEAT_SECONDS = 1.0
RETRY_GRACE_SECONDS = 3.0
"""How long past its countdown a retry may start late before its worker is taken for dead."""

log = structlog.get_logger()


class Claim(StrEnum):
    CLAIMED = "claimed"
    GONE = "gone"
    BUSY = "busy"
    CONCLUDED = "concluded"


@dataclass(slots=True, kw_only=True)
class Lease:
    """One claimed recovery. ``token`` grows with every claim; an older one can write nothing."""

    control: ControlPlane
    assignment: Assignment
    token: int
    claimed_ms: int

    @property
    def fence(self) -> str:
        """The token as the scripts take it; empty where a dry run holds no lease."""
        return str(self.token) if self.token else ""

    def write(self, facts: Mapping[str, object]) -> None:
        """Renew, and store facts in the recovery's record; raises ``LeaseLost``."""
        self._keep("", TTL_SECONDS, facts)

    def renew(self) -> None:
        self._keep("", TTL_SECONDS, {})

    def await_retry(self, countdown: float) -> None:
        """Keep the target held, without a heartbeat, until a little after the retry is due."""
        self._keep(State.RETRYING.value, countdown + RETRY_GRACE_SECONDS, {})

    def _keep(self, phase: str, ttl: float, facts: Mapping[str, object]) -> None:
        if not self.token:
            self._write_unfenced(facts)
            return
        pairs = [text for name, value in facts.items() for text in (name, _as_text(value))]
        held = self.control.run(
            "keep",
            self.assignment.recovery_id,
            str(self.assignment.target),
            self.token,
            int(ttl * 1000),
            phase,
            *pairs,
        )
        if not held:
            raise LeaseLost(f"recovery {self.assignment.recovery_id} is somebody else's by now")

    def _write_unfenced(self, facts: Mapping[str, object]) -> None:
        if facts:
            with reachable():
                self.control.redis.hset(
                    self.control.key("recovery", self.assignment.recovery_id),
                    mapping={name: _as_text(value) for name, value in facts.items()},
                )


def claim(control: ControlPlane, assignment: Assignment, holder: str) -> Lease | Claim:
    """Take the lease, or say why not; raises ``ControlPlaneUnavailable``."""
    answer, token, now_ms = control.run(
        "claim",
        assignment.recovery_id,
        str(assignment.target),
        holder,
        int(TTL_SECONDS * 1000),
    )
    if answer != Claim.CLAIMED:
        return Claim(answer)
    return Lease(control=control, assignment=assignment, token=int(token), claimed_ms=int(now_ms))


@contextmanager
def heartbeat(lease: Lease) -> Iterator[threading.Event]:
    """Renew the lease in the background; the yielded event is set once it is lost for good.

    A control plane that cannot be reached is not a lost lease: the repair goes on, and the fence
    decides at the end whose word counts.
    """
    lost, done = threading.Event(), threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT_SECONDS):
            try:
                lease.renew()
            except LeaseLost:
                lost.set()
                return
            except ControlPlaneUnavailable as error:
                log.warning("heartbeat missed", error=str(error))

    thread = threading.Thread(target=beat, name="lease-heartbeat", daemon=True)
    if lease.token:
        thread.start()
    try:
        yield lost
    finally:
        done.set()


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))

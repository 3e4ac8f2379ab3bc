"""The stored record of one recovery, from its event to its outcome, and how to follow it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from recovery.controlplane import reachable
from recovery.errors import InvalidEvent, UnknownRecovery
from recovery.events import (
    Decision,
    FailureEvent,
    Outcome,
    ProbeReport,
    Stage,
    State,
    Step,
    TargetRef,
)

if TYPE_CHECKING:
    from recovery.controlplane import ControlPlane

_POLL_SECONDS = 0.05
_GLOB = re.compile(r"[*?\[\]^\\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """One run of one strategy. Times are epoch milliseconds of the control plane's clock.

    ``host``: the one that keeps what this recovery removed; only there it can be resumed.
    ``budget_ms``: since when the strategy's time runs; later than ``started_ms`` where another
    worker took over from a dead one.
    """

    id: str
    event: FailureEvent
    strategy: str
    state: State
    stage: Stage | None = None
    attempts: int = 0
    resumed: int = 0
    dry_run: bool = False
    holder: str | None = None
    host: str | None = None
    before: ProbeReport | None = None
    outcome: Outcome | None = None
    level: int = 1
    received_ms: int = 0
    started_ms: int | None = None
    budget_ms: int | None = None
    concluded_ms: int | None = None
    decision: str | None = None
    decided_by: str | None = None
    decided_why: str | None = None
    forced: bool = False

    @property
    def target(self) -> TargetRef:
        return self.event.target

    @property
    def bound_to(self) -> str | None:
        """The one host that can run it, where there is one."""
        return self.host or self.event.host

    @classmethod
    def from_hash(cls, recovery_id: str, stored: Mapping[str, str]) -> Self:
        before, outcome = stored.get("before"), stored.get("outcome")
        return cls(
            id=recovery_id,
            event=FailureEvent.from_dict(json.loads(stored["event"])),
            strategy=stored["strategy"],
            state=State(stored["state"]),
            stage=Stage(stored["stage"]) if stored.get("stage") else None,
            attempts=int(stored.get("attempts", 0)),
            resumed=int(stored.get("resumed", 0)),
            dry_run="dry_run" in stored,
            holder=stored.get("holder"),
            host=stored.get("host"),
            before=ProbeReport.from_dict(json.loads(before)) if before else None,
            outcome=Outcome.from_dict(json.loads(outcome)) if outcome else None,
            level=int(stored.get("level", 1)),
            received_ms=int(stored.get("received_ms", 0)),
            started_ms=_optional_int(stored.get("started_ms")),
            budget_ms=_optional_int(stored.get("budget_ms")),
            concluded_ms=_optional_int(stored.get("concluded_ms")),
            decision=stored.get("decision"),
            decided_by=stored.get("decided_by"),
            decided_why=stored.get("decided_why"),
            forced="forced" in stored,
        )


def find(control: ControlPlane, beginning: str) -> str:
    """The full id of the one recovery whose id begins so; what begins none is answered as it is.

    Walks through the keys of the control plane, so this is for a person who waits for it. Raises
    ``InvalidEvent`` where several begin so.
    """
    prefix = control.key("recovery", "")
    literal = _GLOB.sub(r"\\\g<0>", prefix + beginning)
    with reachable():
        if control.redis.exists(prefix + beginning):
            return beginning
        found = {key.removeprefix(prefix) for key in control.redis.scan_iter(f"{literal}*", 1000)}
    if len(found) > 1:
        raise InvalidEvent(
            f"{beginning!r} begins the ids of {len(found)} recoveries", {"allowed": sorted(found)}
        )
    return found.pop() if found else beginning


def load(control: ControlPlane, recovery_id: str) -> Recovery:
    """Raises ``UnknownRecovery`` and ``ControlPlaneUnavailable``."""
    with reachable():
        stored = control.redis.hgetall(control.key("recovery", recovery_id))
    if "event" not in stored:
        raise UnknownRecovery(f"no recovery has the id {recovery_id!r}", {"id": recovery_id})
    return Recovery.from_hash(recovery_id, stored)


def refusal(control: ControlPlane, recovery_id: str) -> Decision | None:
    """The decision on an event that was refused within the last minute."""
    with reachable():
        stored = control.redis.get(control.key("decision", recovery_id))
    return Decision.from_dict(json.loads(stored)) if stored else None


def steps(control: ControlPlane, recovery_id: str, since: int = 0) -> tuple[Step, ...]:
    """The journal of a recovery from its ``since``-th step on."""
    with reachable():
        stored = control.redis.lrange(control.key("steps", recovery_id), since, -1)
    return tuple(Step.from_dict(json.loads(text)) for text in stored)


def follow(
    control: ControlPlane, recovery_id: str, timeout: float, *, is_approved: bool = False
) -> Iterator[Recovery | Decision | Step]:
    """Yield what happens to an event until it is refused, waits for approval or is concluded.

    ``is_approved``: a person has decided, so waiting for approval is not where it ends. Yields each
    new step, the record at each change of state, or the refusal; ends silently after
    ``timeout`` seconds. A record of an id that nobody dispatched yet is waited for.
    """
    deadline = time.monotonic() + timeout
    seen_state: State | None = None
    told = 0
    while time.monotonic() < deadline:
        refused = refusal(control, recovery_id)
        if refused is not None:
            yield refused
            return
        try:
            record = load(control, recovery_id)
        except UnknownRecovery:
            time.sleep(_POLL_SECONDS)
            continue
        for step in steps(control, recovery_id, told):
            told += 1
            yield step
        if record.state is not seen_state:
            seen_state = record.state
            yield record
        if record.state is State.CONCLUDED:
            return
        if record.state is State.AWAITING_APPROVAL and not is_approved:
            return
        time.sleep(_POLL_SECONDS)


def _optional_int(text: str | None) -> int | None:
    return None if text is None else int(text)

"""Everything that is measured and shown, read from the control Redis at one moment.

One script answers, so that what ``recovery status``, ``recovery metrics``, ``/metrics`` and the
status page say fits together, whatever happens meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from recovery import disabling, metrics, modes, registry
from recovery.controlplane import reachable
from recovery.events import Step
from recovery.observations import FIELDS, Observation
from recovery.strategy import COMPONENTS

if TYPE_CHECKING:
    from recovery.config import Environment, Policy
    from recovery.controlplane import ControlPlane
    from recovery.events import TargetRef


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetState:
    """One target now. ``cooldown_seconds`` is what is left of it; None where there is none.

    ``doing``: the newest step of the recovery that runs, and how many ``percent`` of it are done,
    where it says so. ``seen``: what its last probe found, where one has run within the hour.
    """

    target: str
    level: int
    attempts_in_hour: int
    max_attempts_per_hour: int
    cooldown_seconds: float | None
    on_probation: bool
    recovery_id: str | None
    phase: str | None
    holder: str | None
    doing: str | None
    percent: int | None
    last_result: str | None
    last_strategy: str | None
    seen: Observation | None

    @property
    def attempts_left(self) -> int:
        return max(self.max_attempts_per_hour - self.attempts_in_hour, 0)

    def as_dict(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in self.__slots__}
        return {**plain, "seen": self.seen.as_dict() if self.seen else None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """What waits on the broker. ``oldest_seconds`` is None where its sender gave no time."""

    name: str
    length: int
    oldest_seconds: float | None
    consumers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One recovery that waits for a person."""

    id: str
    target: str
    strategy: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The control plane at one moment, by its own clock.

    ``queues`` is empty where the broker is no Redis. ``audit_lag_seconds``: the age of the oldest
    entry that is in no sealed file yet.
    """

    now_ms: int
    counted: metrics.Snapshot
    targets: tuple[TargetState, ...]
    degraded: tuple[modes.DegradedMode, ...]
    waiting: tuple[Waiting, ...]
    disabled: tuple[disabling.Disabled, ...]
    workers: tuple[registry.Seen, ...]
    queues: tuple[Queue, ...]
    audit_unsealed: int
    audit_lag_seconds: float

    @property
    def at(self) -> datetime:
        return datetime.fromtimestamp(self.now_ms / 1000, UTC)


def measure(
    control: ControlPlane, policy: Policy, environment: Environment | None = None
) -> Measurement:
    """Raises ``ControlPlaneUnavailable``.

    ``environment`` says where the broker is; without it that is the control Redis.
    """
    refs = policy.target_refs()
    names = registry.queues_of(policy)
    broker = environment.broker_url if environment else None
    scopes = scopes_of(refs)
    answer = control.run(
        "measure",
        json.dumps([str(ref) for ref in refs]),
        json.dumps(scopes),
        json.dumps([] if broker else names),
        json.dumps(FIELDS),
    )
    now_ms, counters, active, pending, audited, states, off, nodes, lengths = answer
    seen = registry.read(map(_as_dict, nodes), now_ms)
    if broker:
        lengths = elsewhere(broker, names)
    return Measurement(
        now_ms=now_ms,
        counted=metrics.read(_as_dict(counters)),
        targets=tuple(_state(policy, ref, row) for ref, row in zip(refs, states, strict=True)),
        degraded=modes.read(policy, _as_dict(active)),
        waiting=tuple(sorted(_waiting(_as_dict(pending), now_ms), key=lambda one: -one.seconds)),
        disabled=disabling.read(zip(scopes, off, strict=True)),
        workers=seen,
        queues=tuple(_queue(*q, seen, now_ms) for q in zip(names, lengths, strict=False)),
        audit_unsealed=audited[0],
        audit_lag_seconds=_lag(audited[1], now_ms),
    )


def scopes_of(refs: Iterable[TargetRef]) -> list[str]:
    return [disabling.EVERYTHING, *COMPONENTS, *map(str, refs)]


def elsewhere(broker_url: str, queues: Iterable[str]) -> list[list[Any]]:
    """Lengths and oldest messages on a broker of its own; nothing where that is no Redis."""
    from redis import Redis
    from redis.exceptions import ResponseError

    if not broker_url.startswith(("redis://", "rediss://", "redis+socket://")):
        return []
    url = broker_url.replace("redis+socket://", "unix://", 1)
    with reachable(), Redis.from_url(url, decode_responses=True, socket_timeout=2.0) as broker:
        pipe = broker.pipeline(transaction=False)
        for queue in queues:
            pipe.llen(queue)
            pipe.lindex(queue, -1)
        found = pipe.execute(raise_on_error=False)
    pairs = zip(found[::2], found[1::2], strict=True)
    return [
        [0, ""] if isinstance(length, ResponseError) else [length, sent_ms(oldest or "")]
        for length, oldest in pairs
    ]


def sent_ms(message: str) -> str:
    """When a message was sent, as its header says; empty where it does not."""
    try:
        return str(int(json.loads(message)["headers"]["recovery_sent_ms"]))
    except (KeyError, TypeError, ValueError, RecursionError):
        return ""


def _state(policy: Policy, ref: TargetRef, text: str) -> TargetState:
    level, trial, cooldown_ms, attempts, lease, phase, holder, last, step, seen = json.loads(text)
    past = json.loads(last) if last else {}
    newest = Step.from_dict(json.loads(step)) if step else None
    percent = newest.figures.get("percent") if newest else None
    found = {name: value for name, value in zip(FIELDS, seen, strict=True) if value is not False}
    return TargetState(
        target=str(ref),
        level=int(level or 1),
        attempts_in_hour=attempts,
        max_attempts_per_hour=policy.limits(ref).max_attempts_per_hour,
        cooldown_seconds=cooldown_ms / 1000 if cooldown_ms > 0 else None,
        on_probation=trial is not False,
        recovery_id=lease or None,
        phase=phase or None,
        holder=holder or None,
        doing=newest.text if newest else None,
        percent=percent if isinstance(percent, int) else None,
        last_result=past.get("result"),
        last_strategy=past.get("strategy"),
        seen=Observation.from_hash(ref, found) if found else None,
    )


def _waiting(pending: Mapping[str, str], now_ms: int) -> Iterable[Waiting]:
    for recovery_id, text in pending.items():
        held = json.loads(text)
        seconds = max(now_ms - held["since"], 0) / 1000
        yield Waiting(
            id=recovery_id, target=held["target"], strategy=held["strategy"], seconds=seconds
        )


def _queue(name: str, found: list[Any], seen: tuple[registry.Seen, ...], now_ms: int) -> Queue:
    length, sent = found
    return Queue(
        name=name,
        length=length,
        oldest_seconds=max(now_ms - int(sent), 0) / 1000 if sent else None,
        consumers=sum(one.is_alive and name in one.worker.queues for one in seen),
    )


def _lag(oldest: str, now_ms: int) -> float:
    """Of a stream's id, which begins with its time."""
    return max(now_ms - int(oldest.partition("-")[0]), 0) / 1000 if oldest else 0.0


def _as_dict(pairs: list[str]) -> dict[str, str]:
    return dict(zip(pairs[::2], pairs[1::2], strict=True))

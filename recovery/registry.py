"""Which workers live and which queues they consume: each says so every two seconds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from recovery.controlplane import reachable

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.controlplane import ControlPlane

REGISTER_SECONDS = 2.0
DEAD_SECONDS = 10.0
"""A worker silent for this long is taken for dead."""

FORGET_SECONDS = 3600.0
"""How long a dead worker is still shown."""

COMMON_QUEUES = ("dispatch", "maintenance", "notify")
"""What every installation needs consumed, whatever its policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What a worker says of itself: ``active`` of ``concurrency`` pool processes are at work."""

    node: str
    host: str
    pid: int
    version: str
    queues: tuple[str, ...]
    concurrency: int
    active: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A worker and how long ago it last spoke, in seconds."""

    worker: Worker
    age: float

    @property
    def is_alive(self) -> bool:
        return self.age < DEAD_SECONDS

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self.worker), "age": round(self.age, 1), "alive": self.is_alive}


def register(control: ControlPlane, worker: Worker) -> None:
    """Raises ``ControlPlaneUnavailable``."""
    facts = {**asdict(worker), "queues": json.dumps(worker.queues)}
    pairs = [part for pair in facts.items() for part in pair]
    control.run("register", worker.node, int(FORGET_SECONDS * 1000), *pairs)


def unregister(control: ControlPlane, worker: Worker) -> None:
    """Only this very process's entry; raises ``ControlPlaneUnavailable``."""
    control.run("unregister", worker.node, worker.host, worker.pid)


def workers(control: ControlPlane) -> tuple[Seen, ...]:
    """Every worker that lives or died within the hour, by node name."""
    with reachable():
        pipe = control.redis.pipeline(transaction=False)
        pipe.time()
        pipe.zrange(control.key("workers"), 0, -1)
        (seconds, micros), nodes = pipe.execute()
        for node in sorted(nodes):
            pipe.hgetall(control.key("worker", node))
        stored = pipe.execute()
    return read(stored, seconds * 1000 + micros // 1000)


def read(stored: Iterable[dict[str, str]], now_ms: int) -> tuple[Seen, ...]:
    """Make sense of the workers' hashes."""
    found = (_seen(one, now_ms) for one in stored if one)
    return tuple(sorted(found, key=lambda one: one.worker.node))


def unconsumed(wanted: Iterable[str], seen: Iterable[Seen]) -> tuple[str, ...]:
    """Those of the queues that no living worker consumes."""
    consumed = {queue for one in seen if one.is_alive for queue in one.worker.queues}
    return tuple(queue for queue in wanted if queue not in consumed)


def queues_of(policy: Policy) -> tuple[str, ...]:
    """Every queue that the policy's recoveries and probes need consumed by somebody."""
    remedied = {name for name, found in policy.components.items() if found.strategies}
    refs = (ref for ref in policy.target_refs() if ref.component in remedied)
    probed = {policy.probe_queue(ref) for ref in policy.target_refs() if policy.probing(ref)}
    return (*COMMON_QUEUES, *sorted({policy.queue(ref) for ref in refs}), *sorted(probed))


def complaint(control: ControlPlane, queue: str) -> str:
    """What to add to an answer where nobody would take its message; empty where somebody does."""
    return f"no live worker consumes queue {queue}" if unconsumed([queue], workers(control)) else ""


def hosts_of(component: str, seen: Iterable[Seen]) -> tuple[str, ...]:
    """The hosts on which some worker lives that consumes this component's queue of its host."""
    living = (one.worker for one in seen if one.is_alive)
    return tuple(sorted({w.host for w in living if f"{component}.{w.host}" in w.queues}))


def _seen(stored: dict[str, str], now_ms: int) -> Seen:
    worker = Worker(
        node=stored["node"],
        host=stored["host"],
        pid=int(stored["pid"]),
        version=stored["version"],
        queues=tuple(json.loads(stored["queues"])),
        concurrency=int(stored["concurrency"]),
        active=int(stored["active"]),
    )
    return Seen(worker=worker, age=max(now_ms - int(stored["seen"]), 0) / 1000)

"""The broker killed again and again under load: supervised workers come back, nothing is lost."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from recovery import audit, records, registry
from recovery.controlplane import ControlPlane
from recovery.errors import ControlPlaneUnavailable, UnknownRecovery
from recovery.events import State
from tests.servers import RedisServer
from tests.stack import Stack
from tests.supervising import supervising
from tests.waiting import until

pytestmark = [pytest.mark.kill, pytest.mark.slow]

ROUNDS = int(os.environ.get("RECOVERY_BROKER_ROUNDS", "4"))
HOSTS = ("a", "b")
TARGETS_EACH = 4
NAMES = [f"{host}{number}" for host in HOSTS for number in range(TARGETS_EACH)]
MISSED_SENDS = 2


@pytest.fixture
def policy_options(redis_server: RedisServer) -> dict[str, Any]:
    """Several targets a host, so that each worker always has something under way."""
    targets = {name: {"url": redis_server.url, "host": name[0]} for name in NAMES}
    return {"component": {"targets": targets}}


@dataclass(slots=True)
class Load:
    """One recovery after the other for every target, as fast as they end."""

    stack: Stack
    current: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    ended: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in NAMES})
    missed: int = 0

    def step(self) -> None:
        for name in NAMES:
            try:
                self._advance(name)
            except ControlPlaneUnavailable:
                self.missed += 1
                return

    def _advance(self, name: str) -> None:
        identity = self.current.setdefault(name, str(uuid4()))
        if identity not in self.taken:
            why = {"force": True, "reason": "load", "by": "a test"}
            self.stack.trigger(target=name, strategy="reconnect", recovery_id=identity, **why)
            self.taken.add(identity)
        if self._is_over(identity):
            self.ended[name].append(identity)
            del self.current[name]

    def _is_over(self, identity: str) -> bool:
        try:
            return records.load(self.stack.control, identity).state is State.CONCLUDED
        except UnknownRecovery:
            return False

    def until_each_ended(self, more: int) -> None:
        goal = {name: len(self.ended[name]) + more for name in NAMES}

        def reached() -> bool:
            self.step()
            return all(len(self.ended[name]) >= goal[name] for name in NAMES)

        until(reached, seconds=40, what=f"{more} more of each; under way: {self.current}")

    def until_missed(self, more: int) -> None:
        goal = self.missed + more

        def reached() -> bool:
            self.step()
            return self.missed >= goal

        until(reached, what="senders notice")


def test_each_worker_consumes_again_and_no_recovery_is_lost_or_run_twice(
    stack: Stack, tmp_path: Path, control_redis: RedisServer
) -> None:
    counted = tmp_path / "counted"
    environ = {**stack.environ, "COUNT_FILE": str(counted)}
    common = {"app": "tests.counting_app", "concurrency": 2}
    workers = [
        {"node": "brain@test", "queues": ["dispatch", "maintenance", "notify"], "beat": True},
        *({"node": f"{host}@test", "queues": [f"redis.{host}"]} for host in HOSTS),
    ]
    load = Load(stack)
    with supervising(tmp_path, environ, workers=[{**common, **one} for one in workers]) as found:
        until(lambda: len(registry.workers(stack.control)) == len(workers), seconds=30)
        load.until_each_ended(1)

        for _ in range(ROUNDS):
            control_redis.kill()
            load.until_missed(MISSED_SENDS)
            control_redis.start()
            load.until_each_ended(2)

    runs, entries = Counter(counted.read_text().split()), Counter(audited(stack.control))
    ended = {identity for ids in load.ended.values() for identity in ids}
    assert {identity for identity in ended if runs[identity] != 1} == set(), found.said()
    assert {identity for identity in ended if entries[identity] != 1} == set(), found.said()


def audited(control: ControlPlane) -> Iterable[str]:
    found = audit.history(control, since=audit.last_hours(1))
    return (str(entry.fields.get("id")) for entry in found)

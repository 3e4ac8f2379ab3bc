"""An application's side of the system: in a process of its own, or in the test's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import recovery.client
from recovery.controlplane import ControlPlane
from recovery.errors import NothingKept
from recovery.events import TargetRef
from recovery.journal import Deadline, RecordingJournal
from recovery.strategy import Kept, Scope
from tests.fleet import ROOT
from tests.servers import RedisServer
from tests.waiting import until

TARGET = "redis/cache"


@dataclass
class Application:
    """A running ``tests.client.application``."""

    process: subprocess.Popen[str]

    def ask(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("?\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def goes_on(self, rounds: int = 100) -> None:
        """Return when each of its workers has done so many rounds more."""
        goals = [done + rounds for done in self.ask()["done"]]

        def is_there() -> bool:
            return all(d >= goal for d, goal in zip(self.ask()["done"], goals, strict=True))

        until(is_there, seconds=20, what="every worker goes on")

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start_application() -> Iterator[Callable[..., Application]]:
    running: list[Application] = []

    def start(kind: str, url: str, environ: dict[str, str]) -> Application:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.client.application", kind, url],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(Application(process))
        return running[-1]

    yield start
    for application in running:
        application.stop()


@pytest.fixture
def control(control_redis: RedisServer) -> Iterator[ControlPlane]:
    control = ControlPlane(control_redis.client())
    yield control
    control.redis.close()


@pytest.fixture
def listening(control_redis: RedisServer) -> Iterator[None]:
    """The helper runs in the test's own process, and knows the degraded modes."""
    recovery.client.stop()
    assert recovery.client.start(control_redis.url, wait=20)
    yield
    recovery.client.stop()


def _no_keeper() -> Kept:
    raise NothingKept("this remedy removes nothing")


@pytest.fixture
def tell(control: ControlPlane) -> Callable[[], None]:
    """Have a remedy ask the applications of ``redis/cache`` to renew their pools."""
    recoveries = iter(range(1_000_000))

    def tell() -> None:
        journal = RecordingJournal(
            control,
            f"recovery-{next(recoveries)}",
            TargetRef.parse(TARGET),
            deadline=Deadline(5),
            keeper=_no_keeper,
            scope=Scope(),
        )
        journal.tell_applications("applications asked", "renew_pool")

    return tell

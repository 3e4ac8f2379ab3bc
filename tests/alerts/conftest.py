"""A control plane with facts in its outbox, and sinks behind its channels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from recovery import alerts
from recovery.alerts import Channel
from recovery.config import Policy
from recovery.controlplane import ControlPlane
from tests.alerts.sinks import HttpSink, MailSink
from tests.policies import make_policy
from tests.servers import RedisServer


@dataclass(slots=True)
class Desk:
    """Writes facts as the scripts do, and lets channels have their turn."""

    control: ControlPlane
    folder: Path
    policy: Policy

    def turn_to(self, **alerting: Any) -> Policy:
        integration = alerting.pop("integration", {})
        http = {"public_url": "https://recovery.example.org"}
        sections = {"alerting": alerting, "integration": integration, "http": http}
        self.policy = make_policy(self.folder, {"default": {}, "cache": {}}, sections=sections)
        return self.policy

    def tell(self, kind: str = "recovery", **fact: Any) -> None:
        said = {"kind": kind, "target": "redis/default", "at": self.control.now_ms(), **fact}
        if kind == "recovery":
            said = {"strategy": "reconnect", "result": "failed", "id": "r-1", **said}
        self.control.redis.xadd(self.control.key("outbox"), {"alert": json.dumps(said)})

    def deliver(self, *channels: Channel) -> int:
        return alerts.deliver(
            self.control, self.policy, channels or alerts.channels_of(self.policy)
        )

    def rest_is_over(self, name: str) -> None:
        """As if the time had passed for which a channel is left alone."""
        self.control.redis.hdel(self.control.key("channel", name), "rests_until")


@pytest.fixture
def desk(control_redis: RedisServer, tmp_path: Path) -> Iterator[Desk]:
    control = ControlPlane(control_redis.client())
    yield Desk(control, tmp_path, make_policy(tmp_path, {"default": {}, "cache": {}}))
    control.redis.close()


@pytest.fixture
def sink() -> Iterator[HttpSink]:
    sink = HttpSink()
    sink.start()
    yield sink
    sink.stop()


@pytest.fixture
def other_sink() -> Iterator[HttpSink]:
    sink = HttpSink()
    sink.start()
    yield sink
    sink.stop()


@pytest.fixture
def mail() -> Iterator[MailSink]:
    sink = MailSink()
    sink.start()
    yield sink
    sink.stop()

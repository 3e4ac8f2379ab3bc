"""What an end-to-end test needs: control plane, target, policy, and workers on demand."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from recovery import producer, records
from recovery.config import Policy, load_policy
from recovery.controlplane import ControlPlane
from recovery.errors import UnknownRecovery
from recovery.events import State
from tests.fleet import Fleet
from tests.policies import write_policy
from tests.servers import RedisServer, filled, free_port
from tests.waiting import until


@dataclass(slots=True)
class Stack:
    """A control plane and one Redis target ``redis/default`` with room for few clients."""

    control: ControlPlane
    policy: Policy
    policy_file: Path
    target: RedisServer
    app: Celery
    environ: dict[str, str]
    leaked: list[socket.socket] = field(default_factory=list)

    def exhaust_clients(self) -> None:
        """Leak connections until the server refuses the next one."""
        self.leaked += filled(self.target)

    def trigger(
        self, failure_type: str | None = None, *, component: str = "redis", **said: Any
    ) -> str:
        return producer.trigger(component, failure_type, app=self.app, **said)

    def record(self, recovery_id: str) -> records.Recovery | None:
        try:
            return records.load(self.control, recovery_id)
        except UnknownRecovery:
            return None

    def concluded(self, recovery_id: str, seconds: float = 20.0) -> records.Recovery:
        def ended() -> records.Recovery | None:
            record = self.record(recovery_id)
            return record if record and record.state is State.CONCLUDED else None

        found = until(ended, seconds=seconds, what=f"{recovery_id} is concluded")
        assert found is not None
        return found


@pytest.fixture
def policy_options() -> dict[str, Any]:
    """What a test module wants the policy to say differently; override it there."""
    return {}


@pytest.fixture
def stack(
    tmp_path: Path,
    control_redis: RedisServer,
    redis_server: RedisServer,
    policy_options: dict[str, Any],
) -> Iterator[Stack]:
    target = {"url": redis_server.url}
    # What breaks here is told by the test, unless it wants the schedule to find it.
    unwatched = {"integration": {"health_check_integration": False}}
    options = {**policy_options, "sections": unwatched | policy_options.get("sections", {})}
    policy_file = write_policy(tmp_path, {"default": target}, **options)
    environ = {
        **os.environ,
        "RECOVERY_CONFIG": str(policy_file),
        "RECOVERY_REDIS_URL": control_redis.url,
        "RECOVERY_STATE_DIR": str(tmp_path / "state"),
        "RECOVERY_HOST": "test-host",
        "RECOVERY_HTTP_PORT": str(free_port()),
    }
    app = Celery("test-producer", broker=control_redis.url, set_as_current=False)
    stack = Stack(
        control=ControlPlane(control_redis.client()),
        policy=load_policy(policy_file),
        policy_file=policy_file,
        target=redis_server,
        app=app,
        environ=environ,
    )
    yield stack
    app.close()
    stack.control.redis.close()
    for leaked in stack.leaked:
        leaked.close()


@pytest.fixture
def fleet(stack: Stack, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(stack.environ, tmp_path)
    yield fleet
    fleet.stop()

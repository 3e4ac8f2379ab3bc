"""A control Redis, a target and workers of two hosts, each a container of one network."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from celery import Celery
from pytest_celery import CeleryTestWorker, CeleryWorkerContainer, RedisContainer, RedisTestBroker

from recovery import producer, records, registry
from recovery.controlplane import ControlPlane
from recovery.errors import ControlPlaneUnavailable, UnknownRecovery
from recovery.events import State
from tests.policies import policy_text
from tests.servers import RedisServer, filled, free_port
from tests.waiting import until

if TYPE_CHECKING:
    from docker import DockerClient

HOSTS = ("host-a", "host-b")
PATIENCE = 90.0


class ControlContainer(RedisContainer):
    """pytest-celery's broker, with what a control plane needs: a port that stays, and a disk."""

    @classmethod
    def command(cls, *args: str, **kwargs: Any) -> list[str]:
        return ["redis-server", "--appendonly", "yes", "--protected-mode", "no", "--dir", "/tmp"]


class RecoveryContainer(CeleryWorkerContainer):
    """Our own worker command; it brings its application and its settings with it."""

    @classmethod
    def worker_name(cls) -> str:
        return "recovery"


@dataclass(slots=True)
class Cluster:
    """What a test asks and breaks."""

    broker: RedisTestBroker
    workers: dict[str, CeleryTestWorker]
    target: RedisServer
    control: ControlPlane
    app: Celery
    containers: dict[str, Any]
    leaked: list[socket.socket] = field(default_factory=list)

    def break_target(self) -> None:
        self.leaked += filled(self.target)

    def alive(self) -> set[str]:
        try:
            return {s.worker.host for s in registry.workers(self.control) if s.is_alive}
        except ControlPlaneUnavailable:
            return set()

    def is_whole(self) -> bool:
        return self.alive() == set(HOSTS)

    def trigger(self, target: str = "default", **said: Any) -> str:
        return producer.trigger("redis", "connection_error", target=target, app=self.app, **said)

    def concluded(self, recovery_id: str) -> records.Recovery:
        def ended() -> records.Recovery | None:
            try:
                record = records.load(self.control, recovery_id)
            except (ControlPlaneUnavailable, UnknownRecovery):
                return None
            return record if record.state is State.CONCLUDED else None

        found = until(ended, seconds=PATIENCE, what=f"{recovery_id} is concluded")
        assert found is not None
        return found

    def logs(self) -> str:
        return "\n".join(f"== {host}\n{w.container.logs()}" for host, w in self.workers.items())


@pytest.fixture
def cluster(
    docker_engine: DockerClient, docker_image: str, recovery_image: str, tmp_path: Path
) -> Iterator[Cluster]:
    mark = f"recovery-smoke-{uuid4().hex[:8]}"
    policy = tmp_path / "policy.yml"
    url = {"url": "redis://target:6379/0"}
    policy.write_text(
        policy_text(
            {"default": url, "bound": {**url, "host": "host-b"}},
            recovery={"max_attempts_per_hour": 50, "queue_wait_seconds": 60},
            sections={
                "alerting": {"channels": []},
                "integration": {"health_check_integration": False},
            },
        )
    )
    policy.chmod(0o644)
    tmp_path.chmod(0o755)
    network = docker_engine.networks.create(mark)
    ports = {name: free_port() for name in ("control", "target")}
    started = []

    def start(name: str, image: str, command: list[str], **said: Any) -> Any:
        raw = docker_engine.containers.create(
            image, command, name=f"{mark}-{name}", hostname=name, **said
        )
        started.append(raw)
        network.connect(raw, aliases=[name])
        raw.start()
        return raw

    try:
        server = ControlContainer.command()
        control, _ = (
            start(name, docker_image, server, ports={"6379/tcp": ("127.0.0.1", ports[name])})
            for name in ("control", "target")
        )
        environ = {"RECOVERY_REDIS_URL": "redis://control:6379/0"}
        workers = {
            host: start(
                host,
                recovery_image,
                ["worker", *(["--beat"] if host == "host-a" else [])],
                environment={**environ, "RECOVERY_HOST": host},
                volumes={str(policy): {"bind": "/etc/recovery/recovery_config.yml", "mode": "ro"}},
                read_only=True,
                tmpfs={"/tmp": "size=64m"},
                cap_drop=["ALL"],
                init=True,
            )
            for host in HOSTS
        }
        url = f"redis://127.0.0.1:{ports['control']}/0"
        app = Celery("smoke", broker=url, set_as_current=False)
        found = RedisServer(tmp_path, port=ports["control"])
        cluster = Cluster(
            broker=RedisTestBroker(ControlContainer(control), app),
            workers={
                host: CeleryTestWorker(RecoveryContainer(raw), app) for host, raw in workers.items()
            },
            target=RedisServer(tmp_path, port=ports["target"]),
            control=ControlPlane(found.client()),
            app=app,
            containers=workers,
        )
        until(found.answers, seconds=PATIENCE, what="the control Redis answers")
        until(cluster.target.answers, seconds=PATIENCE, what="the target answers")
        try:
            until(cluster.is_whole, seconds=PATIENCE, what="both hosts' workers are alive")
            yield cluster
        finally:
            # Shown by pytest where the test failed.
            sys.stderr.write(cluster.logs())
        for connection in cluster.leaked:
            connection.close()
        app.close()
        cluster.control.redis.close()
    finally:
        for raw in reversed(started):
            raw.remove(force=True, v=True)
        network.remove()

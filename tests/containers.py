"""A real Redis in a container with everything that a replacement could lose."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import redis

from recovery.components.redis.restart_container import RestartContainer, restart_container, undo
from recovery.components.redis.target import RedisTarget
from recovery.runtime import DockerRuntime
from tests.journals import MemoryJournal
from tests.servers import free_port
from tests.waiting import until

if TYPE_CHECKING:
    from docker import DockerClient

SERVER = ["redis-server", "--dir", "/data", "--appendonly", "yes", "--protected-mode", "no"]
ALIAS = "cache"

FAST = RestartContainer(stop_grace=2.0)
SHORT = "1a2b3c4d"
"""What stands for the recovery of a ``MemoryJournal`` in the names of its containers."""


@dataclass(slots=True)
class RedisContainer:
    """One container by its name, whichever container has that name now."""

    engine: DockerClient
    image: str
    name: str
    port: int
    subnet: str

    @property
    def api(self) -> Any:
        return self.engine.api

    @property
    def runtime(self) -> DockerRuntime:
        return DockerRuntime(kind="docker", container=self.name)

    @property
    def target(self) -> RedisTarget:
        return RedisTarget(url=f"redis://127.0.0.1:{self.port}/0", runtime=self.runtime)

    @property
    def networks(self) -> tuple[str, str]:
        return f"{self.name}-front", f"{self.name}-back"

    @property
    def volume(self) -> str:
        return f"{self.name}-data"

    def document(self) -> dict[str, Any]:
        """What the engine takes to create it. The folder ``/scratch`` is an anonymous volume."""
        first, _ = self.networks
        endpoint = {
            "IPAMConfig": {"IPv4Address": f"{self.subnet}.7"},
            "Aliases": [ALIAS, "redis.internal"],
        }
        return {
            "Image": self.image,
            "Cmd": SERVER,
            "Env": ["RECOVERY_TEST=1", "TOKEN=not-for-logs"],
            "User": "0:0",
            "WorkingDir": "/data",
            "Hostname": "redis-one",
            "Domainname": "example.test",
            "StopSignal": "SIGTERM",
            "StopTimeout": 3,
            "Labels": {
                "com.docker.compose.project": self.name,
                "com.docker.compose.service": "redis",
                "com.docker.compose.container-number": "1",
            },
            "ExposedPorts": {"6379/tcp": {}},
            "Volumes": {"/scratch": {}},
            "Healthcheck": {
                "Test": ["CMD", "redis-cli", "ping"],
                "Interval": 5_000_000_000,
                "Timeout": 2_000_000_000,
                "Retries": 4,
            },
            "HostConfig": {
                "Binds": [f"{self.volume}:/data:rw", "/etc/hostname:/mnt/hostname:ro"],
                "Mounts": [{"Type": "volume", "Target": "/spare"}],
                "NetworkMode": first,
                "PortBindings": {"6379/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(self.port)}]},
                "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 5},
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}},
                "Memory": 128 * 1024 * 1024,
                "NanoCpus": 1_500_000_000,
                "PidsLimit": 200,
                "CapAdd": ["CAP_NET_ADMIN"],
                "CapDrop": ["CAP_AUDIT_WRITE"],
                "Devices": [
                    {
                        "PathOnHost": "/dev/null",
                        "PathInContainer": "/dev/nothing",
                        "CgroupPermissions": "rw",
                    }
                ],
                "Ulimits": [{"Name": "nofile", "Soft": 2000, "Hard": 4000}],
                "Tmpfs": {"/run/scratch": "size=1m"},
                "Dns": ["127.0.0.53"],
                "DnsSearch": ["example.test"],
                "ExtraHosts": ["elsewhere:192.0.2.1"],
                "SecurityOpt": ["no-new-privileges"],
                "Sysctls": {"net.ipv4.ip_unprivileged_port_start": "100"},
                "ShmSize": 8 * 1024 * 1024,
                "Init": True,
            },
            "NetworkingConfig": {"EndpointsConfig": {first: endpoint}},
        }

    def create(self, document: dict[str, Any] | None = None) -> None:
        """Create it and attach the second network; it does not run yet."""
        made = self.api.create_container_from_config(document or self.document(), name=self.name)
        self.api.connect_container_to_network(
            made["Id"], self.networks[1], aliases=["redis.backend"]
        )

    def start(self) -> None:
        self.api.start(self.name)
        until(self.answers, what=f"{self.name} answers")

    def fill(self) -> None:
        """A key in the named volume, and a file in each of the anonymous ones."""
        with self.client() as client:
            client.set("kept", "yes")
        self.run("touch", "/scratch/kept", "/spare/kept")

    def is_filled(self) -> bool:
        with self.client() as client:
            return client.get("kept") == "yes" and "kept" in self.run("ls", "/scratch", "/spare")

    def run(self, *command: str) -> str:
        code, output = self.engine.containers.get(self.name).exec_run(list(command))
        assert code == 0, output
        return str(output.decode())

    def client(self) -> redis.Redis:
        return redis.Redis(
            port=self.port, decode_responses=True, socket_timeout=1, socket_connect_timeout=1
        )

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def inspect(self, name: str | None = None) -> dict[str, Any]:
        shown: dict[str, Any] = self.api.inspect_container(name or self.name)
        # The engine shows them in any order.
        shown["Mounts"].sort(key=lambda mount: str(mount["Destination"]))
        return shown

    def family(self) -> dict[str, str]:
        """Every container of this test by its name, and its state."""
        listed = self.api.containers(all=True, filters={"name": self.name})
        return {entry["Names"][0][1:]: entry["State"] for entry in listed}

    def remove(self) -> None:
        """All of them, with the volumes that no longer count as anonymous."""
        names = list(self.family())
        mounts = [mount for name in names for mount in self.inspect(name)["Mounts"]]
        for name in names:
            self.api.remove_container(name, force=True)
        for volume in {mount["Name"] for mount in mounts if mount.get("Name")} - {self.volume}:
            self.api.remove_volume(volume)

    def make_surroundings(self) -> None:
        front, back = self.networks
        subnet = {"Subnet": f"{self.subnet}.0/28"}
        self.api.create_network(front, ipam={"Driver": "default", "Config": [subnet]})
        self.api.create_network(back)
        self.api.create_volume(self.volume)

    def remove_surroundings(self) -> None:
        for network in self.networks:
            self.api.remove_network(network)
        self.api.remove_volume(self.volume, force=True)


def restart(target: RedisTarget, journal: MemoryJournal) -> MemoryJournal:
    assert restart_container.remedy is not None
    restart_container.remedy(target, FAST, journal)
    return journal


def put_back(target: RedisTarget, journal: MemoryJournal) -> MemoryJournal:
    undo(target, FAST, journal, journal.keep())
    return journal


def configuration(shown: dict[str, Any]) -> dict[str, Any]:
    """What somebody chose of a container, without what the engine made of it."""
    host = dict(shown["HostConfig"])
    # The copy names the volumes that the old one had without a name; which they are: see mounts.
    host["Binds"] = sorted(bind for bind in host["Binds"] or () if ":/scratch" not in bind)
    host["Mounts"] = [{**mount, "Source": None} for mount in host.get("Mounts") or ()]
    networks = {
        name: {
            "IPAMConfig": endpoint["IPAMConfig"] or None,
            "Aliases": sorted(set(endpoint["Aliases"] or ()) - {shown["Id"][:12]}),
            "DriverOpts": endpoint["DriverOpts"],
            "Links": endpoint["Links"],
        }
        for name, endpoint in shown["NetworkSettings"]["Networks"].items()
    }
    mounts = {
        mount["Destination"]: (mount["Type"], mount.get("Name"), mount["Source"], mount["RW"])
        for mount in shown["Mounts"]
    }
    return {
        "Config": shown["Config"],
        "HostConfig": host,
        "Image": shown["Image"],
        "Name": shown["Name"],
        "Networks": networks,
        "Mounts": mounts,
        "Ports": shown["NetworkSettings"]["Ports"],
    }


@pytest.fixture
def redis_container(docker_engine: DockerClient, docker_image: str) -> Iterator[RedisContainer]:
    """It runs, answers, and holds what ``is_filled`` looks for."""
    made = RedisContainer(
        engine=docker_engine,
        image=docker_image,
        name=f"recovery-test-{uuid4().hex[:8]}",
        port=free_port(),
        subnet=f"10.{random.randint(200, 250)}.{random.randint(0, 255)}",
    )
    made.make_surroundings()
    try:
        made.create()
        made.start()
        made.fill()
        yield made
    finally:
        made.remove()
        made.remove_surroundings()

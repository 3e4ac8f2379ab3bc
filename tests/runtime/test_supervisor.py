"""A program of a real supervisord, over a Unix socket and over HTTP with a password."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from pydantic import SecretStr

from recovery.deadline import Deadline
from recovery.errors import NoSuchProcess, RuntimeUnavailable, WontStart
from recovery.runtime import Process, SupervisorRuntime, manage
from tests.servers import RedisServer, free_port, redis_binary
from tests.waiting import until

CONFIGURATION = """
[supervisord]
nodaemon=true
logfile={folder}/supervisord.log
pidfile={folder}/supervisord.pid
[unix_http_server]
file={folder}/sock
[inet_http_server]
port=127.0.0.1:{http_port}
username=me
password=right
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[program:redis]
command={redis} --port {port} --bind 127.0.0.1 --save ""
stopwaitsecs=60
[program:missing]
command=/no/such/program
autostart=false
"""


@dataclass(slots=True)
class Supervisord:
    folder: Path
    redis: RedisServer
    http_port: int

    def program(self, name: str = "redis", **said: object) -> Process:
        url = f"unix://{self.folder}/sock"
        runtime = SupervisorRuntime(kind="supervisor", program=name, **{"url": url, **said})
        return manage(runtime, Deadline(20).remaining)

    def over_http(self, password: str) -> Process:
        url = f"http://127.0.0.1:{self.http_port}"
        return self.program(url=url, username="me", password=SecretStr(password))


@pytest.fixture
def supervisord(tmp_path: Path) -> Iterator[Supervisord]:
    if find_spec("supervisor") is None:
        pytest.skip("the supervisor package is not installed")
    started = Supervisord(tmp_path, RedisServer(tmp_path), free_port())
    file = tmp_path / "supervisord.conf"
    file.write_text(
        CONFIGURATION.format(
            folder=tmp_path,
            http_port=started.http_port,
            redis=redis_binary(),
            port=started.redis.port,
        )
    )
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(file)]
    daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(started.redis.answers, what="redis answers under supervisord")
        yield started
    finally:
        daemon.terminate()
        daemon.wait(20)


def test_a_program_is_seen_stopped_and_started(supervisord: Supervisord) -> None:
    program = supervisord.program()
    first = program.inspect()
    assert first.running
    with supervisord.redis.client() as client:
        assert client.info("server")["process_id"] == first.pid

    program.stop(grace=5)
    assert not program.inspect().running
    assert not supervisord.redis.answers()
    program.stop(grace=5)

    program.start()
    until(supervisord.redis.answers)
    assert program.inspect().id != first.id
    program.start()


def test_one_that_does_not_heed_term_is_killed(supervisord: Supervisord) -> None:
    program = supervisord.program()
    frozen = program.inspect().pid
    assert frozen is not None
    os.kill(frozen, signal.SIGSTOP)

    program.restart(grace=0.5)

    until(supervisord.redis.answers)
    assert program.inspect().pid != frozen


def test_a_password_is_sent_beside_the_url(supervisord: Supervisord) -> None:
    assert supervisord.over_http("right").inspect().running
    with pytest.raises(RuntimeUnavailable, match="401") as refused:
        supervisord.over_http("wrong").inspect()
    assert "wrong" not in str(refused.value)


def test_what_is_not_there_or_cannot_start_is_said(supervisord: Supervisord) -> None:
    unknown = supervisord.program("unknown")
    assert not unknown.inspect().exists
    with pytest.raises(NoSuchProcess):
        unknown.start()
    with pytest.raises(WontStart):
        supervisord.program("missing").start()


def test_a_supervisord_that_is_away_is_unavailable(tmp_path: Path) -> None:
    runtime = SupervisorRuntime(kind="supervisor", program="redis", url=f"unix://{tmp_path}/sock")

    with pytest.raises(RuntimeUnavailable):
        manage(runtime, Deadline(5).remaining).inspect()

"""A program of a real supervisord, over a Unix socket and over HTTP with a password."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import xmlrpc.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from recovery.deadline import Deadline
from recovery.errors import NoSuchProcess, RuntimeUnavailable, WontStart
from recovery.runtime import Process, SupervisorRuntime, manage
from tests.servers import RedisServer, free_port, redis_binary
from tests.waiting import until
from tests.web import WebServer, dripping

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
    daemon: subprocess.Popen[bytes]

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
    target, http_port = RedisServer(tmp_path), free_port()
    file = tmp_path / "supervisord.conf"
    file.write_text(
        CONFIGURATION.format(
            folder=tmp_path,
            http_port=http_port,
            redis=redis_binary(),
            port=target.port,
        )
    )
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(file)]
    daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(target.answers, what="redis answers under supervisord")
        yield Supervisord(tmp_path, target, http_port, daemon)
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


def test_one_that_shuts_down_is_unavailable_whatever_is_asked_of_it(
    supervisord: Supervisord,
) -> None:
    program = supervisord.program()
    frozen = program.inspect().pid
    assert frozen is not None
    os.kill(frozen, signal.SIGSTOP)
    supervisord.daemon.terminate()

    try:
        until(lambda: "shutting down" in refusal(program.inspect), what="it shuts down")
        for act in (program.start, lambda: program.stop(grace=1)):
            assert refusal(act) == "supervisord is shutting down"
    finally:
        os.kill(frozen, signal.SIGKILL)


def refusal(act: Callable[[], object]) -> str:
    """Why it is unavailable; anything else that is raised is a failure of the test."""
    try:
        act()
    except RuntimeUnavailable as error:
        return error.message
    return ""


@contextmanager
def instead(text: str) -> Iterator[str]:
    """The URL of a server that answers whatever it is asked with this text."""
    route = Route("/{path:path}", lambda _: Response(text, media_type="text/xml"), methods=["POST"])
    server = WebServer(Starlette(routes=[route]))
    server.start()
    try:
        yield server.url
    finally:
        server.kill()


def answer(value: object) -> str:
    return xmlrpc.client.dumps((value,), methodresponse=True, allow_none=True)


WELL = {"statename": "RUNNING", "pid": 7, "start": 1}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<!DOCTYPE html><html><body><p>Welcome to nginx!</body></html>",
        "<html><body><p>Welcome</p></body></html>",
        '{"status": "ok"}',
        answer("many").replace("string", "int"),
        "<methodResponse><fault><value><string>no</string></value></fault></methodResponse>",
        "<?xml version='1.0' encoding='no-such'?><methodResponse/>",
        answer("RUNNING"),
        answer([WELL]),
        answer({}),
        answer({**WELL, "pid": None}),
        answer({**WELL, "pid": -1}),
        answer({**WELL, "start": float("nan")}),
        answer({**WELL, "statename": 20}),
    ],
)
def test_what_answers_in_place_of_a_supervisord_is_not_believed(text: str) -> None:
    with instead(text) as url:
        runtime = SupervisorRuntime(kind="supervisor", program="redis", url=url)

        said = refusal(manage(runtime, Deadline(20).remaining).inspect)

    assert said == f"{url} answers, but not as supervisord does"


@pytest.mark.parametrize("body", [False, True])
def test_an_answer_that_comes_a_byte_at_a_time_is_not_waited_for_past_the_deadline(
    body: bool,
) -> None:
    async def drip(request: Request) -> Response:
        return dripping(server.transport_of(request), body=body)

    server = WebServer(Starlette(routes=[Route("/{path:path}", drip, methods=["POST"])]))
    server.start()
    try:
        runtime = SupervisorRuntime(kind="supervisor", program="redis", url=server.url)
        assert refusal(manage(runtime, Deadline(0.5).remaining).inspect)
    finally:
        server.kill()


def test_faults_of_another_kind_are_told_in_its_own_words() -> None:
    fault = xmlrpc.client.dumps(xmlrpc.client.Fault(1, "UNKNOWN_METHOD"), methodresponse=True)
    with instead(fault) as url:
        runtime = SupervisorRuntime(kind="supervisor", program="redis", url=url)
        program = manage(runtime, Deadline(20).remaining)

        for act in (program.inspect, program.start, lambda: program.stop(grace=1)):
            assert refusal(act) == "supervisord says: UNKNOWN_METHOD"

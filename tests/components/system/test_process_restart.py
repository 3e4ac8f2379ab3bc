"""Real processes that hang, are stopped for sure and run anew."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from recovery import heard
from recovery.components.system import leftovers, processes
from recovery.components.system.named import NamedProcess
from recovery.components.system.probe import probe
from recovery.components.system.process_restart import OneProcess, ProcessRestart, process_restart
from recovery.components.system.target import HostTarget
from recovery.errors import (
    NeverReady,
    NoSuchProcess,
    NotConfigured,
    RemedyError,
    WontStart,
    WontStop,
    WrongProcess,
)
from recovery.events import ProbeReport
from recovery.runtime.daemonize import identity
from tests.journals import MemoryJournal
from tests.servers import free_port
from tests.waiting import until

if TYPE_CHECKING:
    from docker import DockerClient

SERVER = """
import os, signal, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

folder = Path.cwd()
if (folder / "broken").exists():
    sys.exit(3)
if (folder / "stubborn").exists():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        while (folder / "hang").exists() and (folder / "hang").read_text() == str(os.getpid()):
            time.sleep(0.05)
        self.send_response(500 if (folder / "ill").exists() else 404)
        self.end_headers()

    def log_message(self, *_):
        pass

if (folder / "deaf").exists():
    time.sleep(600)
HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


class App:
    """A web server that a ``command`` runtime runs, to be broken in real ways."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        (folder / "server.py").write_text(SERVER)

    def block(self, **said: Any) -> dict[str, Any]:
        start = [sys.executable, str(self.folder / "server.py"), str(self.port)]
        runtime = {"kind": "command", "name": "app", "start": start, "folder": str(self.folder)}
        return {"url": f"http://127.0.0.1:{self.port}/health", "runtime": runtime, **said}

    def target(self, **said: Any) -> HostTarget:
        return HostTarget.model_validate(
            {"watch": ["processes"], "processes": {"app": self.block(**said)}}
        )

    def hang(self) -> None:
        """This process, and none that comes after it."""
        (self.folder / "hang").write_text(str(self.pid))

    @property
    def pid(self) -> int:
        return int((self.folder / "state" / "run" / "app.pid").read_text().split()[0])


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    app = App(tmp_path)
    yield app
    for noted in (tmp_path / "state" / "run").glob("*.pid"):
        try:
            os.killpg(int(noted.read_text().split()[0]), signal.SIGKILL)
        except ProcessLookupError:
            continue


def restart(
    target: HostTarget, journal: MemoryJournal, process: str | None = None, **said: Any
) -> MemoryJournal:
    journal.scope = OneProcess(process=process)
    parameters = ProcessRestart.model_validate({"stop_grace": 0.5, "steady": 0.3, **said})
    process_restart.remedy(target, parameters, journal)
    return journal


def started(app: App, journal: MemoryJournal, **said: Any) -> int:
    """The application runs, and the probe says so."""
    target = app.target(**said)
    assert found(target).failure_type == "process_unresponsive"
    restart(target, journal)
    assert found(target).healthy
    return app.pid


def lives(pid: int) -> bool:
    return identity(pid) is not None


def found(target: HostTarget) -> ProbeReport:
    return probe(target, 2)


@pytest.fixture
def journal(tmp_path: Path) -> MemoryJournal:
    return MemoryJournal(state_dir=tmp_path, recovery_id="1a2b3c4d-first", seconds=40)


@pytest.fixture
def second(tmp_path: Path) -> MemoryJournal:
    return MemoryJournal(state_dir=tmp_path, recovery_id="2b3c4d5e-second", seconds=40)


def test_a_hung_server_still_accepts_and_is_restarted_as_it_does_not_answer(
    app: App, journal: MemoryJournal, second: MemoryJournal
) -> None:
    first = started(app, journal)
    app.hang()
    socket.create_connection(("127.0.0.1", app.port), 5).close()
    report = found(app.target())
    assert report.failure_type == "process_unresponsive"
    assert "app does not answer: timed out" in report.summary

    restart(app.target(), second)

    assert app.pid != first
    assert not lives(first)
    assert found(app.target()).healthy
    assert second.texts[-1] == "app runs anew and responds"


def test_one_that_ignores_term_is_killed(
    app: App, journal: MemoryJournal, second: MemoryJournal
) -> None:
    (app.folder / "stubborn").touch()
    first = started(app, journal)
    app.hang()

    restart(app.target(), second)

    assert app.pid != first
    assert found(app.target()).healthy


def test_one_that_is_stopped_by_a_signal_is_restarted(
    app: App, journal: MemoryJournal, second: MemoryJournal
) -> None:
    first = started(app, journal)
    os.kill(first, signal.SIGSTOP)
    until(lambda: "stands still" in found(app.target()).summary)

    restart(app.target(), second)

    assert found(app.target()).healthy
    assert not lives(first)


def test_an_answer_of_500_and_more_is_none(app: App, journal: MemoryJournal) -> None:
    started(app, journal)
    (app.folder / "ill").touch()

    assert "app answers with 500" in found(app.target()).summary


def test_only_what_does_not_respond_is_restarted(
    app: App, journal: MemoryJournal, second: MemoryJournal
) -> None:
    first = started(app, journal)
    other = {"cmdline": "no such program", "runtime": app.block()["runtime"] | {"name": "other"}}
    other["runtime"]["start"] = ["sleep", "600"]
    del other["cmdline"]
    target = HostTarget.model_validate(
        {"watch": ["processes"], "processes": {"app": app.block(), "other": other}}
    )

    restart(target, second)

    assert found(target).healthy
    assert app.pid == first


def test_a_healthy_one_is_restarted_when_it_is_named(
    app: App, journal: MemoryJournal, second: MemoryJournal
) -> None:
    first = started(app, journal)
    restart(app.target(), second)
    assert app.pid == first
    assert "every configured process responds" in second.texts[-1]

    restart(app.target(), second, process="app")

    assert app.pid != first
    assert found(app.target()).healthy
    with pytest.raises(NotConfigured, match="names no process 'nginx'; known: app"):
        restart(app.target(), second, process="nginx")


def test_a_dry_run_stops_nothing(app: App, journal: MemoryJournal, second: MemoryJournal) -> None:
    first = started(app, journal)
    app.hang()
    second.dry_run = True

    restart(app.target(), second)

    assert app.pid == first
    assert lives(first)
    assert [step.text for step in second.steps if step.planned] == ["app stopped", "app started"]


def test_without_a_runtime_nothing_is_touched(app: App, journal: MemoryJournal) -> None:
    pidfile = app.folder / "pid"
    pidfile.write_text(str(os.getpid()))
    target = app.target(runtime=None, pidfile=str(pidfile))

    with pytest.raises(NotConfigured) as raised:
        restart(target, journal)

    assert raised.value.facts == {"key": "processes.app.runtime"}


@pytest.mark.parametrize("how", ["check", "program"])
def test_what_could_not_be_started_again_is_not_stopped(
    app: App, journal: MemoryJournal, second: MemoryJournal, how: str
) -> None:
    first = started(app, journal, check=["true"])
    app.hang()
    if how == "check":
        target, expected = app.target(check=["false"]), WontStart
    else:
        block = app.block()
        block["runtime"]["start"] = [str(app.folder / "gone")]
        target, expected = HostTarget.model_validate({"processes": {"app": block}}), NoSuchProcess

    with pytest.raises(expected):
        restart(target, second)

    assert lives(first)


def test_one_that_ends_at_once_is_no_success_and_was_tried_twice(
    app: App, journal: MemoryJournal, second: MemoryJournal
) -> None:
    started(app, journal)
    app.hang()
    (app.folder / "broken").touch()

    with pytest.raises(WontStart):
        restart(app.target(), second)

    assert found(app.target()).summary.startswith("app does not run")


def test_one_that_never_answers_is_left_to_go_on_and_is_no_success(
    app: App, journal: MemoryJournal, second: MemoryJournal
) -> None:
    started(app, journal)
    app.hang()
    (app.folder / "deaf").touch()
    second.begin(4)

    with pytest.raises(NeverReady):
        restart(app.target(), second)

    assert lives(app.pid)


def test_a_process_that_runs_outside_its_runtime_is_never_signalled(
    app: App, journal: MemoryJournal
) -> None:
    stranger = subprocess.Popen(["sleep", "600"])
    pidfile = app.folder / "pid"
    pidfile.write_text(str(stranger.pid))
    try:
        with pytest.raises(WontStop, match=rf"app \({stranger.pid}\) runs on outside its runtime"):
            restart(app.target(pidfile=str(pidfile)), journal, process="app")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_runtime_that_runs_another_process_than_the_policy_finds_is_left_alone(
    app: App, journal: MemoryJournal, second: MemoryJournal
) -> None:
    first = started(app, journal)
    pidfile = app.folder / "pid"
    pidfile.write_text(str(os.getpid()))

    with pytest.raises(WrongProcess, match=f"runs process {first}, and the policy finds"):
        restart(app.target(pidfile=str(pidfile)), second, process="app")

    assert app.pid == first


@pytest.mark.parametrize("line", ["app found", "app stopped", "app started"])
def test_killed_at_any_line_the_next_run_ends_the_work(
    app: App, journal: MemoryJournal, second: MemoryJournal, line: str
) -> None:
    class Killed(BaseException):
        """As SIGKILL: nothing that is meant for errors sees it."""

    def kill() -> None:
        raise Killed

    first = started(app, journal)
    app.hang()
    with pytest.raises(Killed):
        restart(app.target(), second.after(line, kill))
    between = app.pid
    second.watchers.clear()

    restart(app.target(), second)

    assert app.pid != first
    assert found(app.target()).healthy
    if line == "app started":
        assert app.pid == between, "what was started already is not started again"


def test_one_that_fails_does_not_keep_the_others_from_being_restarted(
    app: App, journal: MemoryJournal
) -> None:
    lost = {"name": "no-such-program"}
    target = HostTarget.model_validate(
        {"watch": ["processes"], "processes": {"a-lost": lost, "app": app.block()}}
    )

    with pytest.raises(RemedyError, match="how a-lost is run"):
        restart(target, journal)

    assert lives(app.pid)


def test_a_socket_file_has_to_be_listened_on(tmp_path: Path) -> None:
    pidfile, path = tmp_path / "pid", tmp_path / "it.sock"
    pidfile.write_text(str(os.getpid()))
    target = HostTarget.model_validate(
        {
            "watch": ["processes"],
            "processes": {"it": {"pidfile": str(pidfile), "socket": str(path)}},
        }
    )

    assert f"it accepts no connection on {path}" in found(target).summary
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert found(target).healthy


@pytest.mark.parametrize("url", ["https://localhost/", "http://a:b@localhost/", "ftp://x", "http:"])
def test_an_address_that_cannot_be_asked_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"must"):
        HostTarget.model_validate({"processes": {"it": {"url": url}}})


@pytest.mark.usefixtures("nobody")
def test_without_root_a_process_of_root_is_seen_and_its_limits_are_unknown(tmp_path: Path) -> None:
    os.seteuid(0)
    marked = str(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", "input()", marked], stdin=subprocess.PIPE)
    os.seteuid(65534)
    target = HostTarget.model_validate(
        {"watch": ["processes", "memory"], "processes": {"roots": {"cmdline": marked}}}
    )

    report = probe(target, 2)

    os.seteuid(0)
    process.communicate(b"\n")
    assert report.healthy, report.summary
    assert report.figures["roots_processes"] == 1


def test_a_worker_whose_id_another_process_has_by_now_is_never_signalled(
    tmp_path: Path, journal: MemoryJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the signal the worker ends, and a stranger gets its number."""
    monkeypatch.setenv("RECOVERY_STATE_DIR", str(tmp_path / "state"))
    stranger = subprocess.Popen(["sleep", "600"])
    named = NamedProcess(worker="helper")
    life = identity(stranger.pid) or ""
    was = f"{stranger.pid} {int(life.split()[1]) - 7} {life.split()[2]}"
    folder = tmp_path / "state" / "workers"
    folder.mkdir(parents=True)
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    stale = folder / f"helper@{namespace}-{'-'.join(was.split()[:2])}"
    stale.touch()
    # The same in another container that shares the directory, where it may well be alive.
    elsewhere = folder / f"helper@1-{'-'.join(was.split()[:2])}"
    elsewhere.touch()
    try:
        assert processes.lives(named) == frozenset()
        leftovers._signal(named, was, signal.SIGKILL)
        leftovers.end("helper", named, [was], 0.1, journal)
        assert stranger.poll() is None
        heard.Sign("another").begin()
        assert not stale.exists()
        assert elsewhere.exists()
    finally:
        stranger.kill()
        stranger.wait()


def test_a_worker_that_outlives_its_supervisor_is_ended(
    tmp_path: Path, journal: MemoryJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECOVERY_STATE_DIR", str(tmp_path / "state"))
    script = (
        "import signal, time; from recovery.heard import Sign; Sign('helper').begin();"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    orphan = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert orphan.stdout is not None
    assert orphan.stdout.readline() == b"up\n"
    named = NamedProcess(worker="helper")
    old = processes.lives(named)
    assert len(old) == 1

    leftovers.end("helper", named, old, 0.2, journal)

    assert orphan.wait(10) == -signal.SIGKILL
    orphan.communicate()


@pytest.mark.docker
def test_a_process_in_a_container_is_restarted_in_place(
    docker_engine: DockerClient, docker_image: str, journal: MemoryJournal
) -> None:
    seconds = str(10_000_000 + os.getpid())
    container = docker_engine.containers.run(
        docker_image,
        ["sleep", seconds],
        entrypoint="",
        network_mode="none",
        name=f"recovery-test-{uuid4().hex[:8]}",
        detach=True,
    )
    try:
        first = container.id
        runtime = {"kind": "docker", "container": container.name}
        named = {"cmdline": f"^sleep {seconds}$", "runtime": runtime}
        target = HostTarget.model_validate({"watch": ["processes"], "processes": {"it": named}})
        (before,) = processes.lives(target.processes["it"])
        container.pause()

        restart(target, journal, process="it", stop_grace=1)

        (after,) = processes.lives(target.processes["it"])
        assert after != before
        container.reload()
        assert container.id == first
        assert container.status == "running"
        assert container.attrs["State"]["Pid"] == processes.pid_of(after)
    finally:
        container.remove(force=True)

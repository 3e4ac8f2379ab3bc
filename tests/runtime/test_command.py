"""A process of our own in the background: one at a time, ended for sure, never another's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.deadline import Deadline
from recovery.errors import RuntimeUnavailable, WontStart, WontStop
from recovery.runtime import CommandRuntime, Process, manage
from recovery.runtime.command import Command
from tests.servers import RedisServer, redis_binary
from tests.waiting import until

ALL_SIGNALS_IGNORED = "import signal; signal.signal(15, signal.SIG_IGN); signal.pause()"


@pytest.fixture
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("RECOVERY_STATE_DIR", str(tmp_path / "state"))
    yield tmp_path / "state"
    for pid_file in (tmp_path / "state" / "run").glob("*.pid"):
        kill(int(pid_file.read_text().split()[0]))


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def opened(**said: object) -> Process:
    return manage(CommandRuntime(kind="command", name="test", **said), Deadline(20).remaining)


def redis_command(server: RedisServer) -> tuple[str, ...]:
    return (redis_binary(), "--port", str(server.port), "--save", "", "--bind", "127.0.0.1")


def test_a_server_is_started_in_the_background_seen_and_stopped(
    state_dir: Path, tmp_path: Path
) -> None:
    server = RedisServer(tmp_path)
    process = opened(start=redis_command(server))
    assert not process.inspect().running

    process.start()
    until(server.answers)

    state = process.inspect()
    assert state.running
    with server.client() as client:
        assert client.info("server")["process_id"] == state.pid
    assert os.getsid(state.pid or 0) == state.pid
    process.stop(grace=5)
    assert not process.inspect().running
    assert not server.answers()


def test_a_restart_is_another_process(state_dir: Path, tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    process = opened(start=redis_command(server))
    process.start()
    first = process.inspect()

    process.restart(grace=5)

    second = process.inspect()
    assert second.running
    assert second.id != first.id


def test_a_second_start_leaves_the_one_that_runs(state_dir: Path, tmp_path: Path) -> None:
    process = opened(start=("sleep", "60"))
    process.start()
    first = process.inspect()

    process.start()

    assert process.inspect() == first


def test_of_many_starts_at_once_one_process_comes(state_dir: Path) -> None:
    marker = "60.0314159"
    runtime = {"kind": "command", "name": "test", "start": ["sleep", marker]}
    code = (
        "import sys, json; from recovery.deadline import Deadline;"
        "from recovery.runtime import CommandRuntime, manage;"
        "manage(CommandRuntime(**json.loads(sys.argv[1])), Deadline(20).remaining).start()"
    )
    import json

    many = [subprocess.Popen([sys.executable, "-c", code, json.dumps(runtime)]) for _ in range(5)]

    assert [starter.wait(20) for starter in many] == [0] * 5
    assert len(processes_of(marker)) == 1


def processes_of(marker: str) -> list[int]:
    import psutil

    return [p.pid for p in psutil.process_iter(["cmdline"]) if marker in (p.info["cmdline"] or ())]


def test_one_that_ignores_term_is_killed_with_its_children(state_dir: Path, tmp_path: Path) -> None:
    marker = "61.0271828"
    code = f"import subprocess; subprocess.Popen(['sleep', '{marker}']); {ALL_SIGNALS_IGNORED}"
    process = opened(start=(sys.executable, "-c", code))
    process.start()
    until(lambda: processes_of(marker), what="the child runs")

    process.stop(grace=0.2)

    assert not process.inspect().running
    until(lambda: not processes_of(marker), what="the child is gone")


def test_a_pid_that_is_somebody_elses_by_now_is_not_touched(state_dir: Path) -> None:
    other = subprocess.Popen(["sleep", "60"])
    process = opened(start=("sleep", "60"))
    assert isinstance(process, Command)
    process.pid_file.parent.mkdir(parents=True)
    process.pid_file.write_text(f"{other.pid} 12345 an-earlier-boot")

    process.stop(grace=0.1)

    assert other.poll() is None
    assert not process.inspect().running
    other.kill()
    other.wait()


def test_a_worker_killed_after_the_start_leaves_a_process_that_the_next_one_finds(
    state_dir: Path,
) -> None:
    process = opened(start=("sleep", "60"))
    code = (
        "import os, signal; from recovery.deadline import Deadline;"
        "from recovery.runtime import CommandRuntime, manage;"
        "manage(CommandRuntime(kind='command', name='test', start=('sleep', '60')),"
        " Deadline(20).remaining).start(); os.kill(os.getpid(), signal.SIGKILL)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9

    assert process.inspect().running
    process.stop(grace=1)
    assert not process.inspect().running


def test_what_cannot_be_run_is_said(state_dir: Path) -> None:
    with pytest.raises(WontStart, match="no-such-program"):
        opened(start=("no-such-program",)).start()


def test_the_workers_own_settings_do_not_reach_the_process(
    state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECOVERY_REDIS_PASSWORD", "not-for-others")
    log = tmp_path / "log"

    opened(start=("env",), log_file=str(log)).start()

    assert until(lambda: log.exists() and log.read_text()).count("PATH=") >= 1
    assert "not-for-others" not in log.read_text()


def test_commands_that_return_are_believed_only_by_their_status(tmp_path: Path) -> None:
    running = tmp_path / "running"
    said = {
        "start_returns": True,
        "start": ("touch", str(running)),
        "stop": ("rm", str(running)),
        "status": ("test", "-e", str(running)),
    }
    process = opened(**said)
    assert not process.inspect().running

    process.start()
    assert process.inspect().running
    process.restart(grace=1)
    assert process.inspect().running
    process.stop(grace=1)
    assert not process.inspect().running

    process.start()
    with pytest.raises(WontStop):
        opened(**{**said, "stop": ("true",)}).stop(grace=0.1)
    with pytest.raises(RuntimeUnavailable):
        opened(**{**said, "status": ("no-such-program",)}).inspect()

"""Programs that end, hang, or lose their supervisor: real processes, real signals."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from recovery.supervisor import back_off_seconds
from tests.supervising import Supervised, supervising
from tests.waiting import until

pytestmark = pytest.mark.kill

# Each appends one line when it begins and one when it has ended properly.
PROGRAM = """
import os, signal, subprocess, sys, time
notes, kind = sys.argv[1:]
def note(text):
    with open(notes, "a") as sink: print(text, os.getpid(), file=sink, flush=True)
def end(*_):
    time.sleep(0.3)
    note("ended")
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if kind == "stubborn" else end)
if kind == "parent":
    note(f"child {subprocess.Popen(['sleep', '300']).pid}")
if kind == "curious":
    seen = [name for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC") if name in os.environ]
    note(f"sees {seen}")
note("began")
while kind != "hasty": time.sleep(60)
"""


class Notes:
    def __init__(self, path: Path) -> None:
        self.path = path

    def command(self, kind: str = "willing") -> list[str]:
        return [sys.executable, "-c", PROGRAM, str(self.path), kind]

    def pids(self, word: str) -> list[int]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [int(line.split()[-1]) for line in lines if line.startswith(word)]


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "notes")


def one(notes: Notes, kind: str = "willing") -> list[dict[str, object]]:
    return [{"name": "one", "command": notes.command(kind)}]


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def has_ended(found: Supervised) -> Callable[[], bool]:
    return lambda: found.process.poll() is not None


def test_the_pauses_grow_to_half_a_minute() -> None:
    pauses = [back_off_seconds(failures) for failures in range(7)]

    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_a_killed_program_is_started_again_and_its_group_is_swept(
    tmp_path: Path, notes: Notes
) -> None:
    with supervising(tmp_path, programs=one(notes, "parent")):
        (pid,) = until(lambda: notes.pids("began"), what="it runs")
        (orphan,) = notes.pids("child")

        os.kill(pid, signal.SIGKILL)

        until(lambda: len(notes.pids("began")) == 2, what="it runs again")
        assert is_gone(orphan)


def test_a_program_that_ends_at_once_is_started_after_longer_and_longer_pauses(
    tmp_path: Path, notes: Notes
) -> None:
    with supervising(tmp_path, programs=one(notes, "hasty")) as found:
        until(lambda: len(notes.pids("began")) == 3, what="it ran three times")
        until(lambda: found.said().count("starts again") == 3, what="it says so")

        assert [line.split("in_seconds=")[1].split()[0] for line in restarts(found)] == [
            "1.0",
            "2.0",
            "4.0",
        ]


def restarts(found: Supervised) -> list[str]:
    return [line for line in found.said().splitlines() if "starts again" in line]


def test_sigterm_lets_a_program_finish(tmp_path: Path, notes: Notes) -> None:
    with supervising(tmp_path, programs=one(notes)) as found:
        until(lambda: notes.pids("began"), what="it runs")

        found.send_signal(signal.SIGTERM)
        until(has_ended(found), what="the supervisor ends")

    assert found.process.returncode == 0
    assert notes.pids("ended") == notes.pids("began")


def test_who_does_not_end_in_time_is_killed_with_its_group(tmp_path: Path, notes: Notes) -> None:
    with supervising(tmp_path, programs=one(notes, "stubborn"), grace=0.5) as found:
        (pid,) = until(lambda: notes.pids("began"), what="it runs")

        found.send_signal(signal.SIGTERM)
        until(has_ended(found), what="the supervisor ends")

    assert found.process.returncode == 0
    assert is_gone(pid)
    assert "SIGKILL" in found.said()


def test_a_second_signal_shortens_the_wait(tmp_path: Path, notes: Notes) -> None:
    with supervising(tmp_path, programs=one(notes, "stubborn"), grace=600) as found:
        (pid,) = until(lambda: notes.pids("began"), what="it runs")

        found.send_signal(signal.SIGINT)
        found.send_signal(signal.SIGTERM)
        until(has_ended(found), what="the supervisor ends")

    assert is_gone(pid)


def test_a_killed_supervisor_leaves_nothing_running(tmp_path: Path, notes: Notes) -> None:
    with supervising(tmp_path, programs=one(notes)) as found:
        (pid,) = until(lambda: notes.pids("began"), what="it runs")

        found.send_signal(signal.SIGKILL)
        found.process.wait()

        until(lambda: is_gone(pid), what="its program ends too")
    assert notes.pids("ended") == [pid]


def test_a_foundation_is_up_before_the_others_and_ends_after_them(
    tmp_path: Path, notes: Notes
) -> None:
    below = {"name": "below", "command": notes.command(), "is_foundation": True}
    below |= {"up_file": str(tmp_path / "up")}
    with supervising(tmp_path, programs=[*one(notes), below]) as found:
        (base,) = until(lambda: notes.pids("began"), what="the foundation runs")
        assert len(found.mains()) == 1
        (tmp_path / "up").touch()
        _, other = until(lambda: pair(notes.pids("began")), what="both run")

        found.send_signal(signal.SIGTERM)
        until(has_ended(found), what="the supervisor ends")

    assert notes.pids("ended") == [other, base]


def test_a_foundation_that_never_comes_up_is_an_error(tmp_path: Path, notes: Notes) -> None:
    below = {"name": "below", "command": notes.command("hasty"), "is_foundation": True}
    below |= {"up_file": str(tmp_path / "never")}
    with supervising(tmp_path, programs=[*one(notes), below]) as found:
        until(has_ended(found), what="the supervisor gives up")

    assert "below did not start" in found.said()
    assert len(notes.pids("began")) == 1


def pair(pids: list[int]) -> list[int]:
    return pids if len(pids) == 2 else []


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_systemd_hears_of_start_life_and_end(tmp_path: Path, notes: Notes, kind: str) -> None:
    name = f"@recovery-{os.getpid()}" if kind == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name.replace("@", "\0"))
        systemd.settimeout(10)
        environ = {**os.environ, "NOTIFY_SOCKET": name, "WATCHDOG_USEC": "400000"}
        with supervising(tmp_path, environ, programs=one(notes, "curious")) as found:
            assert systemd.recv(100) == b"READY=1"
            assert systemd.recv(100) == b"WATCHDOG=1"
            assert systemd.recv(100) == b"WATCHDOG=1"
            until(lambda: notes.pids("began"), what="it runs")

            found.send_signal(signal.SIGTERM)
            said = b""
            while not said.startswith(b"STOPPING=1"):
                said = systemd.recv(100)

    assert b"EXTEND_TIMEOUT_USEC=" in said
    assert "sees []" in notes.path.read_text()

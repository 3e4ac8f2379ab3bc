"""``file_handle_cleanup`` killed in the middle: no open connection suffers, the next ends it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from typing import Any

import psutil
import pytest

from recovery.components.system.probe import probe
from recovery.components.system.target import HostTarget
from tests.components.system.test_file_handle_cleanup import (
    Exhausted,
    exhausted,
    forgetful,
    repair,
    waiting,
)
from tests.waiting import until

__all__ = ["exhausted", "forgetful"]

pytestmark = pytest.mark.kill

FORGETFUL = {"forgetful": {"cmdline": "watch, held = select.poll"}}

KILLED = """
import os, signal, socket, sys
import psutil
from recovery.components.system.target import HostTarget
from tests.components.system.test_file_handle_cleanup import repair

where, name, arguments, good, is_after, target = sys.argv[1:]
place, left = {"socket": socket.socket, "psutil": psutil.Process}[where], int(good)
real = getattr(place, name)

def stopping(*given):
    global left
    if len(given) != int(arguments):
        return real(*given)
    result = real(*given) if left or is_after == "True" else None
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return result

setattr(place, name, stopping)
repair(HostTarget.model_validate_json(target), end_close_wait_after=0.001)
"""


def kill_at(
    target: HostTarget, where: str, name: str, arguments: int, *, good: int = 0, after: bool = False
) -> None:
    """A run that gets SIGKILL at a call with so many arguments, when ``good`` of them went well."""
    said = (where, name, str(arguments), str(good), str(after), target.model_dump_json())
    done = subprocess.run([sys.executable, "-c", KILLED, *said], check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("ended", [0, 1, 20])
def test_killed_among_the_connections_the_next_run_ends_the_rest(
    forgetful: tuple[psutil.Process, socket.socket], ended: int
) -> None:
    process, stays = forgetful
    target = HostTarget.model_validate({"processes": FORGETFUL, "watch": ["processes"]})

    kill_at(target, "socket", "shutdown", 2, good=ended)
    until(lambda: waiting(process) == 33 - ended, what="the process has heard of those")
    if not probe(target, 1).healthy:
        repair(target, end_close_wait_after=0.001)

    assert probe(target, 1).healthy
    (open_one,) = (c for c in process.net_connections("tcp") if c.status == "ESTABLISHED")
    assert open_one.raddr == stays.getsockname()


@pytest.mark.parametrize("after", [False, True])
def test_killed_before_or_after_the_limit_is_raised_the_process_opens_files_in_the_end(
    exhausted: Any, after: bool
) -> None:
    hungry: Exhausted = exhausted(67, 400)
    target = hungry.target()

    kill_at(target, "psutil", "rlimit", 3, after=after)
    assert hungry.limit == ((400, 400) if after else (67, 400))
    if not probe(target, 1).healthy:
        repair(target)

    assert probe(target, 1).healthy
    assert hungry.tries_to_open() == "opens"

"""Limits of real processes that have used up their descriptors."""

from __future__ import annotations

import gc
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from recovery.components.system.file_handle_cleanup import FileHandleCleanup, file_handle_cleanup
from recovery.components.system.probe import probe
from recovery.components.system.target import HostTarget, NamedProcess
from recovery.errors import NothingFreed, TargetRefused
from tests.journals import MemoryJournal
from tests.waiting import until

EXHAUSTED = """
import os, resource, sys
soft, hard = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
held = []
def open_all():
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        return
open_all()
print("exhausted", flush=True)
while sys.stdin.readline():
    try:
        os.close(os.open("/dev/null", os.O_RDONLY))
        print("opens", flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
"""


class Exhausted:
    """A process that has opened all that it may."""

    def __init__(self, soft: int, hard: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", EXHAUSTED, str(soft), str(hard)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._says() == "exhausted"

    def _says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tries_to_open(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._says()

    @property
    def limit(self) -> tuple[int, int]:
        return psutil.Process(self.process.pid).rlimit(resource.RLIMIT_NOFILE)

    def target(self, **said: Any) -> HostTarget:
        # A line of the child's own command, so that no other test's child is meant.
        named = NamedProcess(cmdline=f"import os, resource.* {self.limit[0]} ", **said)
        return HostTarget(processes={"hungry": named}, watch=("processes",))


def may_raise_hard_limits() -> bool:
    status = Path("/proc/self/status").read_text()
    granted = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(granted.split()[1], 16) >> 24 & 1)


@pytest.fixture
def exhausted() -> Iterator[Any]:
    started = []

    def start(soft: int, hard: int) -> Exhausted:
        started.append(Exhausted(soft, hard))
        return started[-1]

    yield start
    for each in started:
        each.process.communicate()


def repair(
    target: HostTarget, *, journal: MemoryJournal | None = None, **said: Any
) -> MemoryJournal:
    journal = journal or MemoryJournal()
    file_handle_cleanup.remedy(target, FileHandleCleanup(**said), journal)
    return journal


def test_a_process_at_its_limit_gets_more_and_opens_files_again(exhausted: Any) -> None:
    hungry = exhausted(61, 400)
    target = hungry.target()
    assert hungry.tries_to_open() == "Too many open files"
    found = probe(target, 1)
    assert found.failure_type == "open_file_limit_reached", found.summary

    journal = repair(target)

    assert hungry.tries_to_open() == "opens"
    assert hungry.limit == (400, 400)
    assert probe(target, 1).healthy
    kinds = next(step.figures for step in journal.steps if step.text.startswith("open handles"))
    assert int(kinds["files"] or 0) > 40
    assert kinds["pipes"] == 2


def test_the_policy_may_name_the_limit(exhausted: Any) -> None:
    hungry = exhausted(62, 400)

    repair(hungry.target(open_files=100))

    assert hungry.limit == (100, 400)


def test_a_hard_limit_is_raised_only_where_the_policy_says_so(exhausted: Any) -> None:
    hungry = exhausted(63, 63)

    with pytest.raises(NothingFreed, match="hard limit"):
        repair(hungry.target())
    assert hungry.limit == (63, 63)

    if not may_raise_hard_limits():
        with pytest.raises(TargetRefused):
            repair(hungry.target(), raise_hard_limit=True)
        pytest.skip("without CAP_SYS_RESOURCE nobody may raise a hard limit; it was refused")
    repair(hungry.target(), raise_hard_limit=True)
    assert hungry.limit == (126, 126)
    assert hungry.tries_to_open() == "opens"


def test_a_dry_run_changes_no_limit(exhausted: Any) -> None:
    hungry = exhausted(64, 400)

    journal = repair(hungry.target(), journal=MemoryJournal(dry_run=True))

    assert hungry.limit == (64, 400)
    planned = [step.figures for step in journal.steps if step.planned]
    assert [figures["soft"] for figures in planned if "soft" in figures] == [400]


@pytest.mark.usefixtures("nobody")
def test_a_limit_that_is_not_ours_to_raise_is_refused(exhausted: Any) -> None:
    os.seteuid(0)
    hungry = exhausted(65, 400)
    target = hungry.target()
    os.seteuid(65534)
    try:
        with pytest.raises((TargetRefused, NothingFreed)):
            repair(target)
    finally:
        os.seteuid(0)

    assert hungry.limit == (65, 400)


def test_without_a_process_near_its_limit_the_nearest_are_named() -> None:
    journal = MemoryJournal()

    with pytest.raises(NothingFreed):
        repair(HostTarget(), journal=journal)

    assert any(step.text.startswith("holds descriptors") for step in journal.steps)


FORGETFUL = """
import resource, select, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
watch, held = select.poll(), {}
watch.register(server, select.POLLIN)
watch.register(sys.stdin, select.POLLIN)
while True:
    for number, _ in watch.poll():
        if number == server.fileno():
            new, _ = server.accept()
            held[new.fileno()] = new
            watch.register(new, 0)  # reads nothing: only an end from both sides is noticed
        elif number in held:
            watch.unregister(number)
            held.pop(number).close()
        else:
            sys.exit()
"""


@pytest.fixture
def forgetful() -> Iterator[tuple[psutil.Process, socket.socket]]:
    """A server that keeps what its clients have closed, and one client that is still there."""
    process = subprocess.Popen(
        [sys.executable, "-c", FORGETFUL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    address = ("127.0.0.1", int(process.stdout.readline()))
    found = psutil.Process(process.pid)
    with socket.create_connection(address) as stays:
        for _ in range(33):
            socket.create_connection(address).close()
        until(lambda: found.num_fds() >= 37)
        yield found, stays
    process.communicate("\n")


def waiting(process: psutil.Process) -> int:
    """How many connections wait for the process to close them."""
    return sum(each.status == psutil.CONN_CLOSE_WAIT for each in process.net_connections("tcp"))


def test_connections_that_only_the_process_keeps_are_ended_where_the_policy_says_so(
    forgetful: tuple[psutil.Process, socket.socket],
) -> None:
    process, stays = forgetful
    target = HostTarget(
        processes={"forgetful": NamedProcess(cmdline="watch, held = select.poll")},
        watch=("processes",),
    )
    assert probe(target, 1).failure_type == "open_file_limit_reached"
    assert waiting(process) == 33

    for said in ({}, {"end_close_wait_after": 3600}):
        with pytest.raises(NothingFreed, match="hard limit"):
            repair(target, **said)
        assert waiting(process) == 33

    def ended() -> MemoryJournal | None:
        try:
            return repair(target, end_close_wait_after=0.2)
        except NothingFreed:
            return None

    journal = until(ended, what="they wait for long enough")

    assert waiting(process) == 0
    assert process.num_fds() < 10
    assert probe(target, 1).healthy
    assert process.rlimit(resource.RLIMIT_NOFILE) == (40, 40)
    (open_one,) = (c for c in process.net_connections("tcp") if c.status == "ESTABLISHED")
    assert open_one.raddr == stays.getsockname()
    assert any(step.figures.get("ended") == 33 for step in journal.steps)


class Cycle:
    """Garbage that only a collection closes."""

    def __init__(self) -> None:
        self.itself = self
        self.held = os.open(os.devnull, os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self.held)


def test_what_only_garbage_holds_in_our_own_process_is_closed() -> None:
    gc.disable()
    try:
        for _ in range(20):
            Cycle()
        journal = MemoryJournal()
        with pytest.raises(NothingFreed):
            repair(HostTarget(), journal=journal)
    finally:
        gc.enable()

    assert any(int(step.figures.get("closed") or 0) >= 20 for step in journal.steps)


def test_our_own_limit_is_raised_too() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = len(list(Path("/proc/self/fd").iterdir()))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (held + 2, hard))
        repair(HostTarget())
        raised = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert raised == (min(hard, int(Path("/proc/sys/fs/nr_open").read_text())), hard)

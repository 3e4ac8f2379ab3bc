"""Memory that worker processes give back when they are asked, measured from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from recovery.components.system.collecting import Collected, ask, offer
from recovery.components.system.memory_gc import MemoryGc, memory_gc
from recovery.components.system.target import HostTarget
from recovery.errors import NothingFreed
from recovery.runtime.daemonize import identity
from tests.journals import MemoryJournal
from tests.waiting import until

HOARDER = """
import gc, sys, time
from pathlib import Path
from recovery.components.system import collecting

gc.disable()
how = sys.argv[2]
if how != "deaf":
    collecting.offer(Path(sys.argv[1]))
class Node:
    pass
for _ in range(60_000):
    node = Node()
    node.self, node.rest = node, bytearray(1000)
del node
print("hoarding", flush=True)
if how == "busy":
    while True:
        sum(range(1000))
sys.stdin.read()
"""
MB = 1024 * 1024


@pytest.fixture
def hoarder(state_dir: Path) -> Iterator[Any]:
    """Starts processes with 60 MB of garbage in cycles that their own collector never sees."""
    started = []

    def start(how: str = "idle") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOARDER, str(state_dir), how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "hoarding\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def patience() -> float:
    return 10.0


def resident(process: subprocess.Popen[str]) -> int:
    return int(psutil.Process(process.pid).memory_info().rss)


@pytest.mark.parametrize("how", ["idle", "busy"])
def test_other_processes_give_their_garbage_back_to_the_kernel(hoarder: Any, how: str) -> None:
    process = hoarder(how)
    before = resident(process)
    journal = MemoryJournal()

    memory_gc.remedy(HostTarget(), MemoryGc(), journal)

    assert before - resident(process) > 40 * MB
    assert process.poll() is None
    said = {step.text: step.figures for step in journal.steps}
    assert float(said["memory after"]["freed_mb"] or 0) > 40
    assert said["memory after"]["silent"] == 0
    assert f"process {process.pid} gave memory back" in said


def test_where_nothing_can_be_freed_it_is_no_success_and_the_holders_are_named(
    hoarder: Any,
) -> None:
    hoarder()
    ask_all_until_nothing_comes()

    with pytest.raises(NothingFreed, match="most is held by") as caught:
        memory_gc.remedy(HostTarget(), MemoryGc(), MemoryJournal())

    assert caught.value.facts["holders"]


def ask_all_until_nothing_comes() -> None:
    def is_exhausted() -> bool:
        try:
            memory_gc.remedy(HostTarget(), MemoryGc(), MemoryJournal())
        except NothingFreed:
            return True
        return False

    until(is_exhausted, what="everything is given back")


def test_a_process_that_never_offered_it_is_never_signalled(hoarder: Any, state_dir: Path) -> None:
    deaf = hoarder("deaf")
    willing = hoarder()
    (offered,) = (state_dir / "processes").iterdir()
    start = (identity(deaf.pid) or "").split()[1]
    forged = offered.with_name(f"{offered.name.split('-')[0]}-{deaf.pid}-{start}")
    forged.touch()

    asked = ask(state_dir, patience)

    assert [each.pid for each in asked] == [willing.pid]
    assert deaf.poll() is None


def test_a_process_id_that_another_process_has_by_now_is_not_signalled(
    hoarder: Any, state_dir: Path
) -> None:
    process = hoarder()
    (offered,) = (state_dir / "processes").iterdir()
    namespace, pid, born = offered.name.split("-")
    offered.rename(offered.with_name(f"{namespace}-{pid}-{int(born) - 100}"))
    elsewhere = offered.with_name(f"1-{pid}-{born}")
    elsewhere.touch()

    assert ask(state_dir, patience) == []
    assert list(offered.parent.iterdir()) == [elsewhere]
    assert process.poll() is None


def test_one_that_does_not_answer_is_said_to_be_silent(hoarder: Any, state_dir: Path) -> None:
    process = hoarder()
    process.send_signal(signal.SIGSTOP)

    (asked,) = ask(state_dir, lambda: 0.1)

    assert asked == Collected(
        pid=process.pid, before=asked.before, after=asked.before, answered=False
    )
    process.send_signal(signal.SIGCONT)


def test_a_file_of_another_release_asks_nobody_and_goes(hoarder: Any, state_dir: Path) -> None:
    process = hoarder()
    (offered,) = (state_dir / "processes").iterdir()
    offered.with_name(f"1-{process.pid}-1795558392.02").touch()

    assert [each.pid for each in ask(state_dir, patience)] == [process.pid]
    assert list(offered.parent.iterdir()) == [offered]


def test_the_dead_are_forgotten(hoarder: Any, state_dir: Path) -> None:
    process = hoarder()
    process.kill()
    process.wait()
    restored = signal.getsignal(signal.SIGUSR2)
    try:
        offer(state_dir)
    finally:
        signal.signal(signal.SIGUSR2, restored)

    (own,) = (state_dir / "processes").iterdir()
    assert f"-{os.getpid()}-" in own.name


def test_a_dry_run_asks_nobody(hoarder: Any) -> None:
    process = hoarder()
    before = resident(process)
    journal = MemoryJournal(dry_run=True)

    memory_gc.remedy(HostTarget(), MemoryGc(), journal)

    assert resident(process) >= before - MB
    assert any(step.planned for step in journal.steps)
    assert any(step.text == "who holds most memory" for step in journal.steps)

"""Limits of real processes that have used up their descriptors."""

from __future__ import annotations

import os
import resource
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
    assert [step.figures["soft"] for step in journal.steps if step.planned] == [400]


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

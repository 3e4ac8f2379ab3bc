"""``system.file_handle_cleanup``: show who holds descriptors, and raise limits that are reached."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from recovery import places
from recovery.components.system import half_closed, processes
from recovery.components.system.collecting import ask, collect_here, others
from recovery.components.system.named import NamedProcess
from recovery.components.system.target import HostTarget
from recovery.deadline import Deadline
from recovery.errors import NothingFreed, TargetRefused
from recovery.runtime.process import await_end
from recovery.strategy import Duration, Journal, Parameters, strategy

GIVE_BACK_SECONDS = 1.0
"""How long a process may take to give descriptors back once it is told that they are over."""

MOST_OF_ONE = Path("/proc/sys/fs/nr_open")
"""The kernel's own limit of what one process may be granted."""


class FileHandleCleanup(Parameters):
    """``raise_hard_limit``: where the soft limit is at the hard one already, raise both.

    That takes root's rights, and doubles the limit unless the process's ``open_files`` says more.
    ``end_close_wait_after``: connections that the other end has closed, and on which nothing has
    been heard for so long, are ended; without it none is.
    """

    raise_hard_limit: bool = False
    end_close_wait_after: Duration | None = None


@strategy(
    component="system",
    summary="Raise the limit of open files of processes that have reached theirs.",
    parameters=FileHandleCleanup,
)
def file_handle_cleanup(
    target: HostTarget, parameters: FileHandleCleanup, journal: Journal
) -> None:
    """Closes what is ours and provably unused: what garbage still holds in our own processes.

    Descriptors of another process cannot be closed from outside without breaking it. Raises
    ``NothingFreed`` where no process is near its limit or none may be raised, and ``TargetRefused``
    where the kernel refuses.
    """
    journal.change("descriptors of garbage closed in our processes", lambda: _collect(journal))
    near = list(_near(target))
    if not near:
        _name_holders(journal)
        raise NothingFreed("no process that the policy names is near its limit of open files")
    raised = [_relieve(each, target, parameters, journal) for each in near]
    if not any(raised):
        at_most = ", ".join(each.who for each in near)
        raise NothingFreed(f"{at_most}: the hard limit is reached, and the policy keeps it")
    journal.note("a file could be opened", descriptor=_open_one())


@dataclass(frozen=True, slots=True)
class _Near:
    """A process near its limit, by the key that the policy has for it."""

    key: str
    named: NamedProcess
    process: psutil.Process

    @property
    def who(self) -> str:
        return f"{self.key} ({self.process.pid})"


def _collect(journal: Journal) -> None:
    collected = [collect_here(), *ask(places.state_dir(), journal.remaining)]
    journal.note(
        "our own processes", processes=len(collected), closed=sum(each.closed for each in collected)
    )


def _near(target: HostTarget) -> Iterator[_Near]:
    """Those that the policy names, and those of our own workers."""
    found = processes.find(target.processes.values())
    for (key, named), running in zip(target.processes.items(), found, strict=True):
        yield from (_Near(key, named, each) for each in running if _is_near(each, target))
    for pid in (os.getpid(), *others(places.state_dir())):
        try:
            ours = psutil.Process(pid)
        except psutil.NoSuchProcess:
            continue
        if _is_near(ours, target):
            yield _Near("our own worker", NamedProcess(), ours)


def _relieve(
    near: _Near, target: HostTarget, parameters: FileHandleCleanup, journal: Journal
) -> bool:
    """Whether the process may open files again."""
    journal.note(f"open handles of {near.who}", **processes.kinds(near.process))
    silent = parameters.end_close_wait_after
    if silent is not None and _end_connections(near, silent, journal):
        ends = Deadline(min(GIVE_BACK_SECONDS, journal.remaining()))
        if await_end(lambda: _is_near(near.process, target), ends.seconds, journal.remaining):
            return True
    return _raise(near, parameters, journal)


def _end_connections(near: _Near, silent: float, journal: Journal) -> bool:
    """Whether the process has been told that some connection is over."""
    try:
        ended = journal.change(
            f"connections of {near.who} ended that the other end had closed",
            lambda: half_closed.end(near.process.pid, silent, journal.remaining),
            silent_s=silent,
        )
    except ProcessLookupError:
        return False
    journal.note(f"connections of {near.who}", ended=ended)
    return bool(ended)


def _is_near(process: psutil.Process, target: HostTarget) -> bool:
    held = processes.open_files(process)
    if held is None or held[1] <= 0:
        return False
    return 100 * held[0] / held[1] >= target.thresholds.open_files_percent.healthy


def _raise(near: _Near, parameters: FileHandleCleanup, journal: Journal) -> bool:
    """Whether the process may now open more files; false where its limit must stay."""
    journal.remaining()
    process, who = near.process, near.who
    try:
        soft, hard = process.rlimit(resource.RLIMIT_NOFILE)
        wanted = _wanted(soft, hard, near.named, parameters)
        if wanted is None:
            return False
        journal.change(
            f"limit of open files of {who} raised",
            lambda: process.rlimit(resource.RLIMIT_NOFILE, wanted),
            soft_before=soft,
            soft=wanted[0],
            hard_before=hard,
            hard=wanted[1],
        )
        return journal.dry_run or _is_granted(process, wanted, journal)
    except psutil.AccessDenied as error:
        raise TargetRefused(f"the limit of {who} is not ours to raise") from error
    except psutil.NoSuchProcess:
        return False


def _wanted(
    soft: int, hard: int, named: NamedProcess, parameters: FileHandleCleanup
) -> tuple[int, int] | None:
    """The new soft and hard limit; None where nothing may be raised."""
    ceiling = int(MOST_OF_ONE.read_text())
    highest = ceiling if hard == resource.RLIM_INFINITY else hard
    asked = named.open_files or highest
    if soft < min(asked, highest):
        return min(asked, highest), hard
    if not parameters.raise_hard_limit:
        return None
    more = min(max(named.open_files or 0, 2 * highest), ceiling)
    return (more, max(more, highest)) if more > soft else None


def _is_granted(process: psutil.Process, wanted: tuple[int, int], journal: Journal) -> bool:
    """Read the limit and the descriptors anew: there must be room between them."""
    now = process.rlimit(resource.RLIMIT_NOFILE)
    held = process.num_fds()
    journal.note("limit read again", soft=now[0], hard=now[1], open=held)
    return now == wanted and held < now[0]


def _open_one() -> int:
    """A descriptor of our own, which fails where the whole host has none left."""
    try:
        descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NothingFreed(f"the limits are raised, and no file opens: {error}") from error
    os.close(descriptor)
    return descriptor


def _name_holders(journal: Journal) -> None:
    for name, pid, held, limit in processes.most_open(5):
        journal.note(f"holds descriptors: {name} ({pid})", open=held, limit=limit)

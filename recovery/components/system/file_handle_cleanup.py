"""``system.file_handle_cleanup``: show who holds descriptors, and raise limits that are reached."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import psutil

from recovery.components.system import processes
from recovery.components.system.named import NamedProcess
from recovery.components.system.target import HostTarget
from recovery.errors import NothingFreed, TargetRefused
from recovery.strategy import Journal, Parameters, strategy

MOST_OF_ONE = Path("/proc/sys/fs/nr_open")
"""The kernel's own limit of what one process may be granted."""


class FileHandleCleanup(Parameters):
    """``raise_hard_limit``: where the soft limit is at the hard one already, raise both.

    That takes root's rights, and doubles the limit unless the process's ``open_files`` says more.
    """

    raise_hard_limit: bool = False


@strategy(
    component="system",
    summary="Raise the limit of open files of processes that have reached theirs.",
    parameters=FileHandleCleanup,
)
def file_handle_cleanup(
    target: HostTarget, parameters: FileHandleCleanup, journal: Journal
) -> None:
    """Descriptors of another process cannot be closed from outside without breaking it.

    Raises ``NothingFreed`` where no configured process is near its limit or none may be raised,
    and ``TargetRefused`` where the kernel refuses.
    """
    near = [
        (key, named, process)
        for (key, named), found in zip(
            target.processes.items(), processes.find(target.processes.values()), strict=True
        )
        for process in found
        if _is_near(process, target)
    ]
    if not near:
        _name_holders(journal)
        raise NothingFreed("no process that the policy names is near its limit of open files")
    raised = [_raise(key, named, process, parameters, journal) for key, named, process in near]
    if not any(raised):
        at_most = ", ".join(f"{key} ({process.pid})" for key, _, process in near)
        raise NothingFreed(f"{at_most}: the hard limit is reached, and the policy keeps it")
    journal.note("a file could be opened", descriptor=_open_one())


def _is_near(process: psutil.Process, target: HostTarget) -> bool:
    held = processes.open_files(process)
    if held is None or held[1] <= 0:
        return False
    return 100 * held[0] / held[1] >= target.thresholds.open_files_percent.healthy


def _raise(
    key: str,
    named: NamedProcess,
    process: psutil.Process,
    parameters: FileHandleCleanup,
    journal: Journal,
) -> bool:
    """Whether the process may now open more files; false where its limit must stay."""
    journal.remaining()
    who = f"{key} ({process.pid})"
    journal.note(f"open handles of {who}", **processes.kinds(process))
    try:
        soft, hard = process.rlimit(resource.RLIMIT_NOFILE)
        wanted = _wanted(soft, hard, named, parameters)
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

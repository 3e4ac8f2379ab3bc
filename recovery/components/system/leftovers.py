"""What still runs of a process that its runtime has stopped: ours is ended, another's is named."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection

from recovery.components.system import processes
from recovery.components.system.named import NamedProcess
from recovery.components.system.processes import Life
from recovery.errors import WontStop
from recovery.runtime.process import KILL_SECONDS, await_end
from recovery.strategy import Journal

SETTLE_SECONDS = 1.0
"""How long children and the kernel may take after the runtime said that it is stopped."""


def end(
    key: str, named: NamedProcess, old: Collection[Life], grace: float, journal: Journal
) -> None:
    """See that none of the old lives is left. Raises ``WontStop``.

    A worker of our own may outlive its supervisor, and is known for sure by its sign of life. What
    is found by a name, a command line or a pid file may be anybody's: it is never signalled.
    """
    if _ended(named, old, SETTLE_SECONDS, journal):
        return
    pids = processes.shown(_left(named, old))
    if named.worker is None:
        raise WontStop(f"{key} ({pids}) runs on outside its runtime: the policy names another")
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, KILL_SECONDS)):
        for life in _left(named, old):
            _signal(named, life, number)
        journal.note(f"{number.name} for what outlived its supervisor: {pids}")
        if _ended(named, old, seconds, journal):
            return
    raise WontStop(f"{key} ({pids}) runs on after KILL")


def _ended(named: NamedProcess, old: Collection[Life], seconds: float, journal: Journal) -> bool:
    return await_end(lambda: bool(_left(named, old)), seconds, journal.remaining)


def _left(named: NamedProcess, old: Collection[Life]) -> frozenset[Life]:
    return processes.lives(named) & frozenset(old)


def _signal(named: NamedProcess, life: Life, number: signal.Signals) -> None:
    """Held first and looked at then, so that the signal reaches nobody who has its id by now."""
    try:
        handle = os.pidfd_open(processes.pid_of(life))
    except ProcessLookupError:
        return
    try:
        if life in _left(named, [life]):
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return
    finally:
        os.close(handle)

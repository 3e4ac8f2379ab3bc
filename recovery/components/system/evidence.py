"""What a host can say of itself before anybody touches it. Names of programs, never arguments."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

from recovery.components.system import deleted, filesystems, memory, processes
from recovery.components.system.folders import shown
from recovery.components.system.target import HostTarget
from recovery.errors import DeadlineExceeded

MOST_NAMED = 5


def evidence(target: HostTarget, timeout: float) -> dict[str, Any]:
    """How full, how loaded, and by whom; what takes longer than ``timeout`` seconds is left out."""
    ends = time.monotonic() + timeout
    now = memory.read()
    bundle: dict[str, Any] = {
        "load": os.getloadavg(),
        "memory": {"used": now.used, "limit": now.limit, "swap_percent": now.swap_percent},
        "filesystems": {path: _usage(path, ends) for path in target.filesystems},
        "memory_holders": processes.holders(MOST_NAMED),
    }
    with suppress(DeadlineExceeded):
        _check(ends)
        bundle["descriptor_holders"] = processes.most_open(MOST_NAMED)
        bundle["deleted_and_open"] = _deleted(target, ends)
    return bundle


def _check(ends: float) -> None:
    if time.monotonic() > ends:
        raise DeadlineExceeded("the evidence's time is over")


def _usage(path: str, ends: float) -> dict[str, int] | str:
    try:
        usage = filesystems.read(path, max(ends - time.monotonic(), 0.05))
    except filesystems.Unreadable as error:
        return str(error)
    return {"used": usage.used, "total": usage.total, "inodes_used": usage.inodes_used}


def _deleted(target: HostTarget, ends: float) -> list[dict[str, Any]]:
    devices = set()
    dead = filesystems.dead()
    for path in target.filesystems:
        if filesystems.is_below(path, dead):
            continue
        try:
            devices.add(os.stat(path).st_dev)  # noqa: PTH116
        except OSError:
            continue
    return [
        {
            "pid": ghost.held.pid,
            "process": shown(ghost.held.process),
            "path": shown(ghost.path),
            "bytes": ghost.bytes,
        }
        for ghost in deleted.find(devices, lambda: _check(ends))[:MOST_NAMED]
    ]

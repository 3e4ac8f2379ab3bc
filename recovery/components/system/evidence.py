"""What a host can say of itself before anybody touches it. Names of programs, never arguments."""

from __future__ import annotations

import os
import time
from typing import Any

from recovery.components.system import deleted, filesystems, memory, processes
from recovery.components.system.folders import shown
from recovery.components.system.target import HostTarget

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
    if time.monotonic() < ends:
        bundle["descriptor_holders"] = processes.most_open(MOST_NAMED)
    if time.monotonic() < ends:
        bundle["deleted_and_open"] = _deleted(target)
    return bundle


def _usage(path: str, ends: float) -> dict[str, int] | str:
    try:
        usage = filesystems.read(path, max(ends - time.monotonic(), 0.05))
    except filesystems.Unreadable as error:
        return str(error)
    return {"used": usage.used, "total": usage.total, "inodes_used": usage.inodes_used}


def _deleted(target: HostTarget) -> list[dict[str, Any]]:
    devices = set()
    for path in target.filesystems:
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
        for ghost in deleted.find(devices)[:MOST_NAMED]
    ]

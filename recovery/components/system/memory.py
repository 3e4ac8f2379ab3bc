"""How much memory this host, or the control group around this process, has and uses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

GROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes. ``used`` is what cannot be had back without taking it from somebody.

    ``swap_limit`` is what may be swapped out at most; 0 where there is no swap or none is granted.
    """

    used: int
    limit: int
    swap_used: int = 0
    swap_limit: int = 0

    @property
    def percent(self) -> float:
        return 100 * self.used / self.limit

    @property
    def swap_percent(self) -> float:
        return 100 * self.swap_used / self.swap_limit if self.swap_limit else 0.0


@dataclass(frozen=True, slots=True)
class _Names:
    """The files of one version of control groups. ``with_memory``: those of swap count both."""

    limit: str
    usage: str
    reclaimable: str
    swap_limit: str
    swap_usage: str
    with_memory: bool


_V1 = _Names(
    limit="memory.limit_in_bytes",
    usage="memory.usage_in_bytes",
    reclaimable="total_inactive_file",
    swap_limit="memory.memsw.limit_in_bytes",
    swap_usage="memory.memsw.usage_in_bytes",
    with_memory=True,
)
_V2 = _Names(
    limit="memory.max",
    usage="memory.current",
    reclaimable="inactive_file",
    swap_limit="memory.swap.max",
    swap_usage="memory.swap.current",
    with_memory=False,
)
_UNLIMITED = "max"


def read() -> Memory:
    """The narrower of the two: the host's memory, or what the control groups grant; its swap."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    host = Memory(
        used=memory.total - memory.available,
        limit=memory.total,
        swap_used=swap.used,
        swap_limit=swap.total,
    )
    groups = (one for one in limits(GROUPS, MEMBERSHIP, host) if 0 < one.limit <= host.limit)
    return max([host, *groups], key=lambda one: one.percent)


def limits(groups: Path, membership: Path, host: Memory) -> Iterator[Memory]:
    """What each limited group around this process uses and grants, of either version."""
    for line in membership.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            hierarchies, names = (groups, groups / "unified"), _V2
        elif "memory" in controllers.split(","):
            hierarchies, names = (groups / controllers, groups / "memory"), _V1
        else:
            continue
        for hierarchy in dict.fromkeys(hierarchies):
            yield from _limited(hierarchy, path.strip("/"), names, host)


def _limited(hierarchy: Path, path: str, names: _Names, host: Memory) -> Iterator[Memory]:
    """From the innermost group outwards; inside a container only the outermost may be visible."""
    inner = Path(path)
    for group in (inner, *inner.parents):
        folder = hierarchy / group
        try:
            limit = (folder / names.limit).read_text().strip()
            usage = int((folder / names.usage).read_text())
            stat = (folder / "memory.stat").read_text()
        except (OSError, ValueError):
            continue
        if limit != _UNLIMITED:
            figures = dict(line.split() for line in stat.splitlines())
            swap_used, swap_limit = _swap(folder, names, usage, int(limit), host)
            yield Memory(
                used=max(usage - int(figures.get(names.reclaimable, 0)), 0),
                limit=int(limit),
                swap_used=swap_used,
                swap_limit=swap_limit,
            )


def _swap(folder: Path, names: _Names, usage: int, limit: int, host: Memory) -> tuple[int, int]:
    """Used and granted bytes of a group's swap; the host's where its kernel does not count it."""
    try:
        said = (folder / names.swap_limit).read_text().strip()
        used = int((folder / names.swap_usage).read_text())
    except (OSError, ValueError):
        return host.swap_used, host.swap_limit
    granted = host.swap_limit if said == _UNLIMITED else int(said)
    if names.with_memory:
        used, granted = used - usage, granted - limit
    return max(used, 0), min(max(granted, 0), host.swap_limit)

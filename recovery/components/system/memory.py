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
    """Bytes. ``used`` is what cannot be had back without taking it from somebody."""

    used: int
    limit: int
    swap_percent: float

    @property
    def percent(self) -> float:
        return 100 * self.used / self.limit


@dataclass(frozen=True, slots=True)
class _Names:
    """The files of one version of control groups."""

    limit: str
    usage: str
    reclaimable: str


_V1 = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Names("memory.max", "memory.current", "inactive_file")


def read() -> Memory:
    """The narrower of the two: the host's memory, or what the control groups grant."""
    host = psutil.virtual_memory()
    pairs = [(host.total - host.available, host.total), *limits(GROUPS, MEMBERSHIP)]
    used, limit = max(
        (pair for pair in pairs if 0 < pair[1] <= host.total), key=lambda pair: pair[0] / pair[1]
    )
    return Memory(used=used, limit=limit, swap_percent=psutil.swap_memory().percent)


def limits(groups: Path, membership: Path) -> Iterator[tuple[int, int]]:
    """Used bytes and limit of each limited group around this process, of either version."""
    for line in membership.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            hierarchies, names = (groups, groups / "unified"), _V2
        elif "memory" in controllers.split(","):
            hierarchies, names = (groups / controllers, groups / "memory"), _V1
        else:
            continue
        for hierarchy in dict.fromkeys(hierarchies):
            yield from _limited(hierarchy, path.strip("/"), names)


def _limited(hierarchy: Path, path: str, names: _Names) -> Iterator[tuple[int, int]]:
    """From the innermost group outwards; inside a container only the outermost may be visible."""
    inner = Path(path)
    for group in (inner, *inner.parents):
        try:
            limit = (hierarchy / group / names.limit).read_text().strip()
            usage = int((hierarchy / group / names.usage).read_text())
            stat = (hierarchy / group / "memory.stat").read_text()
        except (OSError, ValueError):
            continue
        if limit != "max":
            figures = dict(line.split() for line in stat.splitlines())
            yield max(usage - int(figures.get(names.reclaimable, 0)), 0), int(limit)

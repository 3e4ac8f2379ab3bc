"""Which container this process lives in, as the kernel shows it from the inside.

Only looks. A worker that stopped its own container would not be there to start it again, and one
that stopped the container whose network it shares could tell nobody of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from recovery.errors import WrongProcess
from recovery.runtime.engine import Inspected

GROUPS = Path("/proc/self/cgroup")
MOUNTS = Path("/proc/self/mountinfo")

_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_OF_THE_ENGINE = frozenset({"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"})
"""Files that the engine mounts from a folder with a container's id: its own, or that of the one
whose network it shares."""


def refuse(container: Inspected) -> None:
    """Raises ``WrongProcess`` where this process lives in that container or in its network."""
    if is_in(container):
        raise WrongProcess(
            f"this worker lives in the container {container.name} or in its network, and would not"
            " be there to start it again: another worker has to do it"
        )


def is_in(container: Inspected) -> bool:
    upper = container.upper_folder
    return container.id in _ids() or (upper is not None and upper == _upper_folder())


def _ids() -> set[str]:
    roots = (root for root, point, _ in _mounts() if point in _OF_THE_ENGINE)
    return {found for text in (_read(GROUPS), *roots) for found in _ID.findall(text)}


def _upper_folder() -> str | None:
    """Where what is written to this container's own files goes; None where that is not overlaid."""
    options = next((options for _, point, options in _mounts() if point == "/"), ())
    return next((each[9:] for each in options if each.startswith("upperdir=")), None)


def _mounts() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Of each mount the folder of its filesystem, where it is seen, and the options."""
    for line in _read(MOUNTS).splitlines():
        before, _, after = line.partition(" - ")
        _, _, _, root, point, *_ = before.split(" ")
        yield root, point, tuple(after.split(" ")[-1].split(","))


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="surrogateescape")
    except OSError:
        return ""

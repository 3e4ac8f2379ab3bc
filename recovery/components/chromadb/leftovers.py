"""What a killed process left of a directory's replacement: brought to an end by whoever comes next.

Everything here wants the directory's lock to be held, which says that nobody is at work on it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from recovery.components.chromadb import exclusive, swap
from recovery.components.chromadb.swap import Place, Swap
from recovery.components.chromadb.target import ChromaTarget
from recovery.deadline import Deadline
from recovery.errors import RemedyError

START_SECONDS = 60.0
"""What a server may take to be back, whatever time is left."""


def settle(path: Path) -> Swap | None:
    """Finish a replacement whose new directory has the name already, else undo it.

    The one that was finished is returned. Raises ``NotReplaceable`` and ``OwnerChanged``.
    """
    found = Swap.find(path)
    finished = None
    if found is not None:
        if found.is_back or found.place() is Place.OLD:
            found.back()
        else:
            found.forward()
            finished = found
        found.end()
    for staged in path.parent.glob(f".{path.name}.recovery-*.new"):
        swap.remove(staged)
    return finished


def settle_alone(target: ChromaTarget) -> None:
    """Settle, and start a server that was left stopped; nothing where another is at work."""
    path = target.path
    if path is None or (Swap.find(path) is None and not exclusive.is_noted_stopped(path)):
        return
    with suppress(RemedyError), exclusive.alone(path, 0):
        settle(path)
        exclusive.start_again(target, path, Deadline(START_SECONDS).remaining)

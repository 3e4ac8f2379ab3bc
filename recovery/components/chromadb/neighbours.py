"""What a collection is called while another one takes its name, or did. It asks no server.

Applications see these names as well. Nothing but the exchange of collections makes them, and who
looks at a server's collections as such passes over them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from recovery.errors import NotReplaceable

LONGEST_NAME = 512
CLAIM = "recovery.at-work"
"""The collection that says that a repair is at work on the server."""

_NEIGHBOUR = re.compile(r"(?P<name>.+)\.(?P<kind>new|aside|undone|between)\.(?P<short>[0-9a-f]{8})")


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOff:
    """An exchange that was killed between two renames: ``owner`` is who the name is due to."""

    name: str
    owner: str
    is_forward: bool


def beside(name: str, kind: str, recovery_id: str) -> str:
    """The name of a collection's neighbour: ``new`` before it has the name, ``aside`` for the one
    that had it, ``undone`` for one that had it for a while, ``between`` for one that came between.
    Raises ``NotReplaceable``."""
    found = f"{name}.{kind}.{hashlib.sha256(recovery_id.encode()).hexdigest()[:8]}"
    if len(found) > LONGEST_NAME:
        raise NotReplaceable(f"the name of collection {name[:40]}… is too long to be put aside")
    return found


def is_one(name: str) -> bool:
    return _NEIGHBOUR.fullmatch(name) is not None or is_claim(name)


def is_claim(name: str) -> bool:
    return name == CLAIM or name.startswith(f"{CLAIM}.")


def cut_off(names: Collection[str]) -> Iterator[CutOff]:
    """Names that are nobody's, with both collections beside them."""
    for found in map(_NEIGHBOUR.fullmatch, names):
        if found is None or found["kind"] != "aside" or found["name"] in names:
            continue
        name, new, undone = (found["name"], *_both(found["name"], found["short"]))
        if new in names:
            yield CutOff(name=name, owner=new, is_forward=True)
        elif undone in names:
            yield CutOff(name=name, owner=found[0], is_forward=False)


def _both(name: str, short: str) -> tuple[str, str]:
    return f"{name}.new.{short}", f"{name}.undone.{short}"

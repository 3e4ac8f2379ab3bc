"""How the containers of a replacement are named, so that every later run knows whose they are."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

_MARKED = re.compile(r"(?P<base>.+)\.recovery-(?P<short>[0-9a-f]{8})(?P<copy>-new)?")
_LEADING_HEX = re.compile(r"[0-9a-f]{8}")


class Parts(NamedTuple):
    """``base`` is the target's name; ``short`` is None where the name is just that."""

    base: str
    short: str | None = None
    is_copy: bool = False


def short_id(recovery_id: str) -> str:
    """The first eight characters that people see of an id, or as many that stand for it."""
    leading = _LEADING_HEX.match(recovery_id)
    if leading:
        return leading[0]
    return hashlib.blake2s(recovery_id.encode(), digest_size=4).hexdigest()


def aside(base: str, short: str) -> str:
    """The name of the old container while it is kept."""
    return f"{base}.recovery-{short}"


def copy(base: str, short: str) -> str:
    """The name of the new container before it gets the target's, and after it lost it again."""
    return f"{aside(base, short)}-new"


def split(name: str) -> Parts:
    found = _MARKED.fullmatch(name)
    if found is None:
        return Parts(name)
    return Parts(found["base"], found["short"], found["copy"] is not None)

"""Text that everybody can be shown and every store can hold, whoever it came from.

What a target, a file name or a person says may hold halves of characters, which no encoder takes,
and control characters, which a terminal obeys. They are shown as what they are; nothing is lost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_SEEN = {n: f"\\x{n:02x}" for n in (*range(0x20), *range(0x7F, 0xA0)) if chr(n) not in "\t\n"}


def readable(text: str) -> str:
    if text.isprintable():
        return text
    return text.encode("utf-8", "backslashreplace").decode().translate(_SEEN)


def plain(value: Any) -> Any:
    """The same for what is nested; a number that JSON does not know is None."""
    match value:
        case str():
            return readable(value)
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {plain(name): plain(held) for name, held in value.items()}
        case list() | tuple():
            return [plain(held) for held in value]
        case _:
            return value

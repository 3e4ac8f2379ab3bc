"""Keys that no pattern reaches: Celery's queues, messages and results, and our own.

They have no TTL and look like leftovers to whoever does not know them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

SEPARATOR = b"\x06\x16"
"""Between a queue and its priority, and between the three parts of a binding."""

BINDINGS = b"_kombu.binding."
OWN_DEFAULT_PREFIX = b"recovery:"

# Each may stand behind a global key prefix, which both transport and backend can be given.
_CELERY = re.compile(
    rb"_kombu\."
    rb"|celery-task(?:set)?-meta-"
    rb"|chord-unlock-"
    rb"|^unacked"
    rb"|unacked(?:_index|_mutex)?$"
)
_LIST_TYPES = frozenset({1, 10, 14, 18})
"""First bytes of a DUMP that is a list: plain, ziplist, quicklist and its second version."""

_ENVELOPE = frozenset({"body", "headers", "properties"})


def is_spared(key: bytes, own_prefix: bytes) -> bool:
    """By its name alone; queues have any name, see ``queues`` and ``is_message``."""
    return key.startswith((own_prefix, OWN_DEFAULT_PREFIX)) or _CELERY.search(key) is not None


def is_list(dump: bytes) -> bool:
    return dump[:1] != b"" and dump[0] in _LIST_TYPES


def queues(binding: bytes, members: Iterable[bytes]) -> set[bytes]:
    """The queues that one ``_kombu.binding.*`` set names, with the global prefix of its key."""
    prefix = binding[: binding.index(BINDINGS)]
    return {prefix + member.rpartition(SEPARATOR)[2] for member in members}


def is_queue(key: bytes, known: set[bytes]) -> bool:
    """Whether a key is one of these queues, or one of its priorities."""
    return key in known or key.rpartition(SEPARATOR)[0] in known


def is_message(element: bytes | None) -> bool:
    """Whether a list's element is a message of kombu: a queue may exist whose binding is gone."""
    if element is None or not element.startswith(b"{"):
        return False
    try:
        found = json.loads(element)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() >= _ENVELOPE

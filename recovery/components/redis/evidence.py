"""What a Redis can say of itself before anybody touches it. No key and no value is read."""

from __future__ import annotations

from collections import Counter
from typing import Any

from recovery.components.redis.connection import enter, named_errors
from recovery.components.redis.target import RedisTarget

SECTIONS = ("server", "clients", "memory", "persistence", "stats", "replication")
MOST_GROUPS = 20


def evidence(target: RedisTarget, timeout: float) -> dict[str, Any]:
    """INFO and the clients by what they do; raises ``RemedyError`` where nothing can be read."""
    client = enter(target, lambda: timeout)
    with named_errors(target):
        info = {section: client.info(section) for section in SECTIONS}
        groups = Counter(
            f"{entry['name'] or '-'} {entry['cmd']} idle {_bucket(int(entry['idle']))}"
            for entry in client.client_list()
        )
        slow = client.slowlog_len()
    return {"info": info, "clients": dict(groups.most_common(MOST_GROUPS)), "slowlog": slow}


def _bucket(idle: int) -> str:
    return next((f"<{bound}s" for bound in (10, 60, 600, 3600) if idle < bound), ">1h")

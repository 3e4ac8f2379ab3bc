"""``redis.reconnect``: make room on the server, renew our connections, have others do so."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from recovery.components.redis.connection import NAME, enter, named_errors, release
from recovery.components.redis.target import RedisTarget
from recovery.strategy import Duration, Journal, Parameters, strategy

SPARED_FLAGS = frozenset("bxMSOPU")
"""CLIENT LIST flags that are never killed: blocked, in MULTI, master, replica, MONITOR, pub/sub;
``U`` is a client on the Unix socket, which has a local owner."""


class Reconnect(Parameters):
    """Which server-side connections count as stale.

    ``stale_after``: idle for so long, a connection is stale at any time. ``idle_at_least``: on a
    full server even younger ones go, the longest idle first, until ``goal_percent`` of maxclients.
    """

    stale_after: Duration = 300.0
    idle_at_least: float = Field(default=1.0, ge=0)
    goal_percent: float = Field(default=75.0, gt=0, lt=100)


@strategy(
    component="redis",
    summary="Kill stale server-side connections, recreate the pool, tell applications to do so.",
    parameters=Reconnect,
    safe_alone=True,
    timeout_seconds=5.0,
    max_retries=3,
)
def reconnect(target: RedisTarget, parameters: Reconnect, journal: Journal) -> None:
    """Raises ``TargetUnreachable`` where the server does not answer, ``TargetRefused`` where it
    refuses the credentials."""
    client = enter(target, journal.remaining)
    with named_errors(target):
        own = client.client_id()
        listed: list[dict[str, str]] = client.client_list()
        most = int(client.info("clients").get("maxclients", 0))
        journal.note("clients listed", clients=len(listed), maxclients=most)
        doomed = stale(listed, parameters, most=most, own=own)
        if doomed:
            journal.change(
                "stale connections killed", lambda: _kill(client, doomed), killed=len(doomed)
            )
    journal.change("own pool recreated", lambda: _renew(target, journal))
    journal.tell_applications("applications asked to renew their pools", "renew_pool")


def stale(
    listed: list[dict[str, str]], parameters: Reconnect, *, most: int, own: int
) -> list[dict[str, str]]:
    """The connections to kill, the longest idle first; ``most`` is the server's maxclients."""
    candidates = sorted(
        (entry for entry in listed if int(entry["id"]) != own and is_expendable(entry)),
        key=lambda entry: -int(entry["idle"]),
    )
    too_many = len(listed) - int(most * parameters.goal_percent / 100) if most else 0
    doomed = []
    for number, entry in enumerate(candidates):
        idle = int(entry["idle"])
        makes_room = number < too_many and idle >= parameters.idle_at_least
        if idle >= parameters.stale_after or makes_room:
            doomed.append(entry)
    return doomed


def is_expendable(entry: dict[str, str]) -> bool:
    """Whether nobody waits on this connection: not blocked, subscribed, in MULTI or replicating;
    nor the standing one of another worker, which could then not get in at the next failure."""
    if entry.get("name") == NAME:
        return False
    subscribed = any(int(entry.get(kind, 0)) > 0 for kind in ("sub", "psub", "ssub"))
    in_transaction = int(entry.get("multi", -1)) >= 0
    return not (set(entry["flags"]) & SPARED_FLAGS or subscribed or in_transaction)


def _kill(client: Any, doomed: list[dict[str, str]]) -> int:
    """By id, so that a new client that took an old one's address is never hit."""
    return sum(int(client.client_kill_filter(_id=entry["id"])) for entry in doomed)


def _renew(target: RedisTarget, journal: Journal) -> None:
    release(target)
    enter(target, journal.remaining)

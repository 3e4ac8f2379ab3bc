"""What ``recovery.client`` and ``recovery.degraded`` cost: a question, a protected command.

The question ``may_use`` is put beside a dict lookup, and beside a Redis HGET, which is what asking
the control plane each time would be. The commands are GETs in turns by a bare client, by a
protected one, and by a protected one whose pool awaits a connection after a renewal.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import redis

import recovery.client
import recovery.degraded
from bench import report, servers

LIMIT = 0.05
COMMAND_LIMIT = 1.05
BATCH = 1000
CAPABILITY = "semantic_search"
MODE = {
    "mode": "chromadb_unavailable",
    "since": 0,
    "recovery_id": "bench",
    "available": [],
    "unavailable": [CAPABILITY, "long_term_memory"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=10_000, help="commands of each client")
    rounds = parser.parse_args().n
    with servers.folder() as where, servers.redis_server(where) as url:
        asking = redis.Redis.from_url(url)
        asking.hset("recovery:degraded", "chromadb/default", json.dumps(MODE))
        if not recovery.client.start(url, wait=10) or recovery.degraded.may_use(CAPABILITY):
            raise RuntimeError("the degraded mode is not known")
        ours, lookup, hget = questions(asking, rounds)
        bare, protected, awaiting = commands(url, rounds)
        recovery.client.stop()
    ratio = round(ours["p50"] / hget["p50"], 4)
    command_ratio = round(protected["p50"] / bare["p50"], 3)
    print(f"dict lookup                      {lookup} µs")
    print(f"may_use                          {ours} µs  ratio to HGET, p50 {ratio}")
    print(f"HGET                             {hget} µs")
    print(f"GET, bare client                 {bare} µs")
    print(f"GET, protected client            {protected} µs  ratio p50 {command_ratio}")
    print(f"GET, protected, awaiting another {awaiting} µs")
    report.finish(
        "client",
        n=rounds,
        unit="µs",
        ours={**ours, "command_ratio": command_ratio, "command_limit": COMMAND_LIMIT},
        baseline=hget,
        ratio=ratio,
        limit=LIMIT,
        ok=ratio <= LIMIT and command_ratio <= COMMAND_LIMIT,
    )


def questions(
    asking: redis.Redis, rounds: int
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Microseconds of ``may_use``, of a dict lookup, and of an HGET."""
    may_use, unavailable = recovery.degraded.may_use, dict.fromkeys(MODE["unavailable"])

    def ours() -> None:
        for _ in range(BATCH):
            may_use(CAPABILITY)

    def lookup() -> None:
        for _ in range(BATCH):
            _ = CAPABILITY in unavailable

    asked, looked, fetched = [], [], []
    for _ in range(rounds // 10):
        asked.append(microseconds(ours) / BATCH)
        looked.append(microseconds(lookup) / BATCH)
        fetched.append(microseconds(lambda: asking.hget("recovery:degraded", "chromadb/default")))
    return report.summary(asked), report.summary(looked), report.summary(fetched, 1)


def commands(url: str, rounds: int) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Microseconds of a GET by each kind of client, one after the other."""
    bare = redis.Redis.from_url(url)
    protected = recovery.client.open_redis(url, target="redis/cache")
    awaiting = recovery.client.protect(redis.Redis.from_url(url), "redis/other", jitter=0)
    subscription = awaiting.pubsub()
    subscription.subscribe("news")
    notice = json.dumps({"target": "redis/other", "notice": "renew_pool", "id": "bench"})
    bare.publish("recovery:notices", notice)
    servers.wait_for(lambda: "release" in vars(awaiting.connection_pool))
    clients = (bare, protected, awaiting)
    taken: list[list[float]] = [[], [], []]
    for number in range(rounds + 100):
        for turn in range(len(clients)):
            # Whoever comes first in a round has a colder processor.
            which = (number + turn) % len(clients)
            spent = microseconds(lambda client=clients[which]: client.get("key"))
            if number >= 100:
                taken[which].append(spent)
    subscription.close()
    first, second, third = (report.summary(values, 1) for values in taken)
    return first, second, third


def microseconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1e6


if __name__ == "__main__":
    main()

"""A storm of events for a target that cools down, beside no-op tasks on the same kind of worker.

Both queues are filled beforehand, so that what is measured is what a worker takes in a second. A
refused event may cost little, and must leave little: a handful of audit entries, no memory.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from itertools import islice
from uuid import uuid4

import psutil
import redis
from celery import Celery

from bench import report, servers

LIMIT = 0.7
AUDIT_LIMIT = 10
GROWTH_LIMIT_MB = 8.0
BATCH = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100_000, help="refused events")
    parser.add_argument("--bare", type=int, default=20_000, help="no-op tasks")
    chosen = parser.parse_args()
    with servers.folder() as where, servers.redis_server(where) as url:
        policy = servers.write_policy(where, url)
        os.environ.update(
            {"RECOVERY_CONFIG": str(policy), "RECOVERY_REDIS_URL": url, "BENCH_REDIS": url}
        )
        client = redis.Redis.from_url(url, decode_responses=True)
        client.set("recovery:cooldown:redis/default", "bench", px=3_600_000)
        event = {"component": "redis", "failure_type": "connection_error"}
        nothing = copies("bare.nothing", {}, "bare1", url)
        bare = drained(client, "bench.bare_app", "bare1", nothing, chosen.bare)
        events = copies("recovery.recover", event, "dispatch", url)
        storm = drained(client, "workers.app", "dispatch", events, chosen.n)
        entries = client.xlen("recovery:audit")
        refused = int(client.hget("recovery:refused:count", "redis/default|cooldown") or 0)
    ratio = round(storm["per_second"] / bare["per_second"], 3)
    print(f"no-op tasks     {bare}")
    print(f"refused events  {storm}")
    print(f"{refused} refusals counted, {entries} audit entries")
    report.finish(
        "storm",
        n=chosen.n,
        unit="tasks/s",
        ours={**storm, "audit_entries": entries},
        baseline=bare,
        ratio=ratio,
        limit=LIMIT,
        ok=ratio >= LIMIT
        and refused == chosen.n
        and entries <= AUDIT_LIMIT
        and max(storm["worker_growth_mb"], storm["redis_growth_mb"]) <= GROWTH_LIMIT_MB,
    )


def drained(
    client: redis.Redis, app: str, queue: str, messages: Iterator[str], count: int
) -> dict[str, float]:
    """Fill a queue, let one worker empty it; tasks a second, and what grew from half-way on."""
    for _ in range(0, count, BATCH):
        client.lpush(queue, *islice(messages, BATCH))
    total = client.llen(queue)
    with servers.folder() as where:
        began = 0.0
        with servers.workers([(app, queue)], dict(os.environ), where):
            began, first = time.monotonic(), client.llen(queue)
            wait_until_left(client, queue, total // 2)
            half = memory(client)
            wait_until_left(client, queue, 0)
            seconds = time.monotonic() - began
            end = memory(client)
    return {
        "per_second": round(first / seconds, 1),
        "worker_growth_mb": round(end[0] - half[0], 2),
        "redis_growth_mb": round(end[1] - half[1], 2),
    }


def copies(task: str, kwargs: dict[str, str], queue: str, url: str) -> Iterator[str]:
    """Messages as Celery sends them, each with an id of its own."""
    app = Celery("sample", broker=url, set_as_current=False)
    sample = f"sample-{uuid4()}"
    app.send_task(task, kwargs=kwargs, queue=sample, ignore_result=True)
    with redis.Redis.from_url(url, decode_responses=True) as client:
        text = client.rpop(sample)
    message = json.loads(str(text).replace(sample, queue))
    identity, tag = message["headers"]["id"], message["properties"]["delivery_tag"]
    template = json.dumps(message)
    app.close()
    while True:
        yield template.replace(identity, str(uuid4())).replace(tag, str(uuid4()))


def wait_until_left(client: redis.Redis, queue: str, left: int) -> None:
    while client.llen(queue) > left or (left == 0 and client.hlen("unacked") > 0):
        time.sleep(0.02)


def memory(client: redis.Redis) -> tuple[float, float]:
    """Megabytes: all processes below this one, and Redis's own without what is queued."""
    workers = [
        child
        for child in psutil.Process().children(recursive=True)
        if "celery" in " ".join(child.cmdline())
    ]
    resident = sum(child.memory_full_info().pss for child in workers) / 1e6
    keys = ("recovery:audit", "recovery:refused:count", "recovery:counters")
    own = sum(client.memory_usage(key) or 0 for key in keys)
    return resident, own / 1e6


if __name__ == "__main__":
    main()

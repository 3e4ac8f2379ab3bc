"""From an event sent to the first line of its strategy's task, beside two bare Celery hops.

Both run in turns on the same Redis, each with two workers of one pool process. What lies between
is ours: validation, selection, admission and the record of the recovery.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import redis
from celery import Celery

from bench import report, servers

LIMIT = 1.25
TIMEOUT = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=400, help="recoveries and bare pairs, each")
    rounds = parser.parse_args().n
    with servers.folder() as where, servers.redis_server(where) as url:
        policy = servers.write_policy(where, url, max_attempts_per_hour=1_000_000)
        environ = {
            **os.environ,
            "RECOVERY_CONFIG": str(policy),
            "RECOVERY_REDIS_URL": url,
            "BENCH_REDIS": url,
        }
        os.environ.update(environ)
        specs = [
            ("bench.bare_app", "bare1"),
            ("bench.bare_app", "bare2"),
            ("bench.measured_app", "dispatch"),
            ("bench.measured_app", "redis"),
        ]
        with servers.workers(specs, environ, where):
            measure(redis.Redis.from_url(url), rounds)


def measure(client: redis.Redis, rounds: int) -> None:
    from bench.bare_app import app as bare
    from recovery import trigger

    def ours() -> list[float]:
        began = time.monotonic()
        return since(began, client, trigger("redis", "connection_error"))

    def forced() -> list[float]:
        began = time.monotonic()
        identity = trigger("redis", "connection_error", force=True, reason="bench", by="bench")
        return since(began, client, identity)

    def baseline() -> list[float]:
        return bare_hops(bare, client)

    for warm_up in (ours, forced, baseline):
        repeat(warm_up, 20)
    bare_ms, task_ms, remedy_ms, concluded_ms = [], [], [], []
    for _ in range(rounds):
        bare_ms.append(baseline()[0])
        task_ms.append(ours()[0])
        _, remedy, concluded = forced()
        remedy_ms.append(remedy)
        concluded_ms.append(concluded)
    first, base = report.summary(task_ms), report.summary(bare_ms)
    ratio = round(first["p50"] / base["p50"], 3)
    print(f"two bare hops                    {base}")
    print(f"event sent → strategy's task     {first}  ratio p50 {ratio}")
    print(f"event sent → first line of remedy {report.summary(remedy_ms)}")
    print(f"event sent → concluded           {report.summary(concluded_ms)}")
    report.finish(
        "dispatch",
        n=rounds,
        unit="ms",
        ours=first,
        baseline=base,
        ratio=ratio,
        limit=LIMIT,
        ok=ratio <= LIMIT,
    )


def repeat(action: Callable[[], object], times: int) -> None:
    for _ in range(times):
        action()


def bare_hops(bare: Celery, client: redis.Redis) -> list[float]:
    began = time.monotonic()
    identity = f"bare-{began}"
    bare.send_task("bare.first", kwargs={"identity": identity}, queue="bare1")
    return since(began, client, identity)


def since(began: float, client: redis.Redis, identity: str) -> list[float]:
    """Milliseconds from ``began`` to each moment that was written down for that id."""
    key = f"bench:{identity}"
    popped = client.blpop([key], TIMEOUT)
    if popped is None:
        raise TimeoutError(f"{identity} did not end")
    rest = client.lrange(key, 0, -1)
    client.delete(key)
    return [(float(moment) - began) * 1000 for moment in (popped[1], *rest)]


if __name__ == "__main__":
    main()

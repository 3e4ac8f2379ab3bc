"""What it costs to look at five hundred targets by schedule, beside the bare probes alone.

One process of looks, as ``recovery worker`` starts it, watches 500 targets of one real Redis at the
default interval. Its processor time a look is set beside that of the same probe called in a loop:
what lies between is claiming, writing down and judging. All looks must be made, and none be late.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from pathlib import Path

import psutil
import redis
import yaml

from bench import report, servers

LIMIT = 3.0
EVERY = 5.0
QUEUE = "probe.redis"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=500, help="targets")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to watch them")
    chosen = parser.parse_args()
    with servers.folder() as where, servers.redis_server(where) as url:
        target_folder = where / "target"
        target_folder.mkdir()
        with servers.redis_server(target_folder) as target_url:
            policy = where / "recovery_config.yml"
            policy.write_text(yaml.safe_dump(policy_of(target_url, chosen.n)))
            os.environ.update({"RECOVERY_CONFIG": str(policy), "RECOVERY_REDIS_URL": url})
            bare = bare_ms(300)
            ours = watched(url, where, chosen.seconds)
    ratio = round(ours["ms_a_look"] / bare, 3)
    expected = chosen.n / EVERY
    print(f"bare probe      {bare} ms of processor time")
    print(f"look            {ours}  ratio {ratio}; {expected:g} looks a second were due")
    report.finish(
        "looks",
        n=chosen.n,
        unit="ms of processor time",
        ours=ours,
        baseline=bare,
        ratio=ratio,
        limit=LIMIT,
        ok=ratio <= LIMIT and ours["looks_a_second"] >= 0.9 * expected and ours["unhealthy"] == 0,
    )


def policy_of(target_url: str, count: int) -> dict[str, object]:
    # What a loaded machine does to a PING is not what is measured here.
    target = {"url": target_url, "thresholds": {"latency_ms": 1000}}
    return {
        "recovery": {
            "redis": {
                "targets": {f"t{number}": target for number in range(count)},
                "strategies": [{"name": "reconnect", "conditions": ["connection_error"]}],
            }
        },
        "detection": {"every": EVERY},
    }


def bare_ms(rounds: int) -> float:
    from recovery.components.redis.probe import probe
    from recovery.config import current_policy

    policy = current_policy()
    target = policy.target(policy.target_refs()[0])
    probe(target, 2.0)
    began = time.process_time()
    for _ in range(rounds):
        probe(target, 2.0)
    return round((time.process_time() - began) * 1000 / rounds, 3)


def watched(url: str, where: Path, seconds: float) -> dict[str, float]:
    from recovery.cli.running import ROUNDS, worker_command

    client = redis.Redis.from_url(url, decode_responses=True)
    command = worker_command("looks@here", [QUEUE], ROUNDS, beat=True, pool="threads")
    with (where / "looks.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=servers.ROOT, stdout=log, stderr=log)
    try:
        servers.wait_for(lambda: looks(client) > 0, 60)
        time.sleep(2 * EVERY)
        first, began, used = looks(client), time.monotonic(), spent(process.pid)
        time.sleep(seconds)
        made, took = looks(client) - first, time.monotonic() - began
        used = spent(process.pid) - used
        return {
            "ms_a_look": round(used * 1000 / made, 3),
            "looks_a_second": round(made / took, 1),
            "share_of_a_core": round(used / took, 3),
            "resident_mb": round(psutil.Process(process.pid).memory_info().rss / 1e6, 1),
            "unhealthy": made_unhealthy(client),
        }
    finally:
        process.terminate()
        process.wait(30)


def looks(client: redis.Redis) -> int:
    return sum(counted(client).values())


def made_unhealthy(client: redis.Redis) -> int:
    return sum(count for name, count in counted(client).items() if not name.endswith("|healthy"))


def counted(client: redis.Redis) -> dict[str, int]:
    stored = client.hgetall("recovery:counters")
    return {name: int(value) for name, value in stored.items() if name.startswith("probe|")}


def spent(pid: int) -> float:
    """Seconds of processor time of a process and all below it, the schedule's included."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    times = [one.cpu_times() for one in family]
    return sum(one.user + one.system for one in times)


if __name__ == "__main__":
    main()

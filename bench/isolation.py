"""From an event to a proven `reconnect`: while ChromaDB's queue is full of slow remedies, and idle.

The slow ones are real: a server that accepts and never answers keeps each `query_retry` busy until
its time is over. Idle comes first, so that it cannot profit from what the other has warmed up.
"""

from __future__ import annotations

import argparse
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis
import yaml

from bench import report, servers

LIMIT = 1.2
CHROMAS = 40
SLOW_SECONDS = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=200, help="reconnects, idle and under load each")
    rounds = parser.parse_args().n
    with servers.folder() as where, servers.redis_server(where) as url, silent_server() as port:
        # The target of the repairs is another server, as everywhere.
        target_folder = where / "target"
        target_folder.mkdir()
        with servers.redis_server(target_folder) as target_url:
            policy = where / "recovery_config.yml"
            policy.write_text(yaml.safe_dump(policy_of(target_url, port)))
            environ = {**os.environ, "RECOVERY_CONFIG": str(policy), "RECOVERY_REDIS_URL": url}
            os.environ.update(environ)
            specs = [("workers.app", name) for name in ("dispatch", "redis", "chromadb")]
            with servers.workers(specs, environ, where):
                client = redis.Redis.from_url(url, decode_responses=True)
                measure(rounds, 20)
                idle = measure(rounds)
                fill(client)
                loaded = measure(rounds)
                waiting = client.llen("chromadb")
    base, ours = report.summary(idle), report.summary(loaded)
    ratio = round(ours["p95"] / base["p95"], 3)
    print(f"idle                   {base}")
    print(f"ChromaDB's queue full  {ours}  ratio p95 {ratio}; {waiting} still wait there")
    report.finish(
        "isolation",
        n=rounds,
        unit="ms",
        ours=ours,
        baseline=base,
        ratio=ratio,
        limit=LIMIT,
        ok=ratio <= LIMIT and waiting > 0,
    )


def policy_of(target_url: str, silent_port: int) -> dict[str, object]:
    silent = {"url": f"http://127.0.0.1:{silent_port}"}
    retry = {
        "name": "query_retry",
        "timeout_seconds": SLOW_SECONDS,
        "max_retries": 100,
        "conditions": ["connection_timeout"],
    }
    reconnect = {"name": "reconnect", "conditions": ["connection_error"]}
    return {
        "recovery": {
            "max_attempts_per_hour": 1_000_000,
            "queue_wait_seconds": 3600,
            "redis": {"targets": {"default": {"url": target_url}}, "strategies": [reconnect]},
            "chromadb": {
                "targets": {f"c{number}": silent for number in range(CHROMAS)},
                "strategies": [retry],
            },
        }
    }


@contextmanager
def silent_server() -> Iterator[int]:
    """The kernel accepts for it; nobody ever reads or answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:
        yield server.getsockname()[1]


def fill(client: redis.Redis) -> None:
    """Every ChromaDB needs its slow remedy now; the worker of that queue is at work on one."""
    from recovery import trigger

    for number in range(CHROMAS):
        trigger("chromadb", "connection_timeout", target=f"c{number}", force=True, reason="bench")
    servers.wait_for(lambda: client.llen("chromadb") > 0 and client.hlen("unacked") > 0)


def measure(rounds: int, warm_up: int | None = None) -> list[float]:
    """Milliseconds from an event to its recovery's conclusion, proven by a probe of the server."""
    from recovery import trigger
    from recovery.config import Environment
    from recovery.controlplane import ControlPlane
    from recovery.events import State
    from recovery.records import load

    control = ControlPlane.connect(Environment.read())
    times = []
    for _ in range(warm_up or rounds):
        began = time.monotonic()
        identity = trigger("redis", "connection_error", force=True, reason="bench", by="bench")
        state = control.key("recovery", identity)
        while control.redis.hget(state, "state") != State.CONCLUDED:
            time.sleep(0.001)
        times.append((time.monotonic() - began) * 1000)
        outcome = load(control, identity).outcome
        if outcome is None or outcome.result != "recovered":
            raise RuntimeError(f"not repaired: {outcome}")
    return times


if __name__ == "__main__":
    main()

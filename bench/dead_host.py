"""From an event for a host that is dead to the alert that says so, beside Celery alone.

Each round a host's only worker is killed with SIGKILL and the event sent right afterwards, when
nobody knows yet. The time ends when the alert is delivered, here as a line of the log. Celery alone
is asked once, by a task whose queue nobody consumes and whose result is waited for.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from celery import Celery
from celery.exceptions import TimeoutError as NoAnswer

from bench import report, servers

LIMIT = 15.0
LIVING, DEAD = "web-1", "web-2"
COMMON = f"dispatch,notify,maintenance,system.{LIVING}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=3, help="rounds")
    rounds = parser.parse_args().n
    with servers.folder() as where, servers.redis_server(where) as url:
        environ = {
            **os.environ,
            "RECOVERY_CONFIG": str(write_policy(where)),
            "RECOVERY_REDIS_URL": url,
            "RECOVERY_STATE_DIR": str(where / "state"),
        }
        app = Celery("bench", broker=url, backend=url, set_as_current=False)
        with worker(LIVING, COMMON, environ, where, beat=True) as (_, log):
            found = [round_of(app, url, environ, where, log) for _ in range(rounds)]
        silent = celery_alone(app)
    for number, seconds in enumerate(found, start=1):
        print(f"round {number}: alert after {seconds:.2f} s")
    print(f"Celery alone: no answer within {silent:g} s")
    report.finish(
        "dead_host",
        n=rounds,
        unit="s",
        ours=report.summary(found) | {"worst": round(max(found), 2)},
        baseline={"celery_silent_for": silent},
        ratio=None,
        limit=LIMIT,
        ok=max(found) <= LIMIT,
    )


def write_policy(where: Path) -> Path:
    targets = {name: {"watch": ["memory"]} for name in (LIVING, DEAD)}
    strategy = {"name": "memory_gc", "conditions": ["memory_pressure"]}
    system = {"targets": targets, "strategies": [strategy], "max_attempts_per_hour": 1000}
    path = where / "recovery_config.yml"
    path.write_text(yaml.safe_dump({"recovery": {"system": system}}))
    return path


def round_of(app: Celery, url: str, environ: dict[str, str], where: Path, log: Path) -> float:
    from recovery import producer, registry
    from recovery.config import Environment
    from recovery.controlplane import ControlPlane

    control = ControlPlane.connect(Environment.read({**environ, "RECOVERY_REDIS_URL": url}))
    with worker(DEAD, f"system.{DEAD}", environ, where) as (process, _):
        servers.wait_for(lambda: DEAD in registry.hosts_of("system", registry.workers(control)), 60)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        began = time.perf_counter()
        sent = producer.trigger("system", "memory_pressure", target=DEAD, app=app)
        servers.wait_for(lambda: is_told(log, sent), 60)
        return time.perf_counter() - began


def is_told(log: Path, recovery_id: str) -> bool:
    lines = log.read_text().splitlines()
    return any("event=alert" in line and recovery_id in line for line in lines)


def celery_alone(app: Celery) -> float:
    result = app.send_task("nobody.has.it", queue="nobody")
    try:
        result.get(timeout=LIMIT)
    except NoAnswer:
        result.forget()
        return LIMIT
    raise RuntimeError("somebody answered")


@contextmanager
def worker(
    host: str, queues: str, environ: dict[str, str], where: Path, *, beat: bool = False
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A worker of that host with a process group of its own; ready when yielded."""
    log = where / f"{host}.log"
    command = [sys.executable, "-m", "celery", "-A", "workers.app", "worker", "-n", f"w@{host}"]
    command += ["-Q", queues, "-c", "1", "-l", "INFO", "--without-mingle", "--without-gossip"]
    command += ["--beat"] if beat else []
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            cwd=servers.ROOT,
            env={**environ, "RECOVERY_HOST": host},
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        servers.wait_for(lambda: "ready." in log.read_text(), 60)
        yield process, log
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)


if __name__ == "__main__":
    main()

"""What an idle Redis worker of ours takes, beside a bare Celery worker with the same pool.

Memory is the sum of PSS over the worker and its pool processes, so that what they share counts
once; processor time is what all of them use in a while of idleness. The worker of ours is the one
that `recovery worker` runs; the supervisor above it is printed and not part of the ratio, because
one supervisor serves any number of workers.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import STDOUT, Popen, TimeoutExpired

import psutil

from bench import report, servers

LIMIT = 1.25
CONCURRENCY = 2
# First the lazy parts of either settle: the first pulse, the first entries in the registry.
SETTLE_SECONDS = 6.0
IDLE_SECONDS = 20.0
MB = 1_000_000


@dataclass(frozen=True)
class Figures:
    memory_mb: float
    cpu_seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-n", type=int, default=2, help="starts of each worker (default 2)")
    rounds = parser.parse_args().n
    with servers.folder() as where, servers.redis_server(where) as url:
        environ = {
            **os.environ,
            "RECOVERY_CONFIG": str(servers.write_policy(where, url)),
            "RECOVERY_REDIS_URL": url,
            "RECOVERY_STATE_DIR": str(where / "state"),
            "BENCH_REDIS": url,
        }
        ours, bare, above = [], [], []
        for _ in range(rounds):
            with supervised(environ, where) as process, bare_worker(environ, where) as baseline:
                time.sleep(SETTLE_SECONDS)
                supervisor = psutil.Process(process.pid)
                worker = next(c for c in supervisor.children() if "celery" in c.cmdline())
                one, other, over = measure(family(worker), family(baseline), [supervisor])
            ours.append(one)
            bare.append(other)
            above.append(over)
    conclude(rounds, ours, bare, above)


def conclude(rounds: int, ours: list[Figures], bare: list[Figures], above: list[Figures]) -> None:
    named = {"bare Celery worker": bare, "redis worker": ours, "its supervisor": above}
    for name, figures in named.items():
        memory, cpu = middle(figures)
        print(f"{name:20} {memory:6.1f} MB   {cpu:5.2f} s of processor in {IDLE_SECONDS:g} s idle")
    (memory, cpu), (base_memory, base_cpu) = middle(ours), middle(bare)
    ratio = round(memory / base_memory, 3)
    report.finish(
        "footprint",
        n=rounds,
        unit=f"MB of PSS, main and {CONCURRENCY} children; idle CPU s",
        ours={"memory": round(memory, 1), "cpu": round(cpu, 2)},
        baseline={"memory": round(base_memory, 1), "cpu": round(base_cpu, 2)},
        ratio=ratio,
        limit=LIMIT,
        ok=ratio <= LIMIT,
    )


def middle(figures: list[Figures]) -> tuple[float, float]:
    return (
        statistics.median(one.memory_mb for one in figures),
        statistics.median(one.cpu_seconds for one in figures),
    )


def measure(*groups: list[psutil.Process]) -> list[Figures]:
    """Of several groups over the same time."""
    before = [cpu_seconds(group) for group in groups]
    time.sleep(IDLE_SECONDS)
    return [
        Figures(
            memory_mb=sum(one.memory_full_info().pss for one in group) / MB,
            cpu_seconds=cpu_seconds(group) - began,
        )
        for group, began in zip(groups, before, strict=True)
    ]


def family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def cpu_seconds(group: list[psutil.Process]) -> float:
    times = [one.cpu_times() for one in group]
    return sum(spent.user + spent.system for spent in times)


@contextmanager
def supervised(environ: dict[str, str], where: Path) -> Iterator[Popen[bytes]]:
    command = ["-c", "from recovery.cli import main; main()", "worker", "--queues", "redis"]
    # Who looks at targets does so in a process of its own, which repairs nothing.
    command += ["--concurrency", str(CONCURRENCY), "--no-probes"]
    with running(command, environ, where / "ours.log") as process:
        yield process


@contextmanager
def bare_worker(environ: dict[str, str], where: Path) -> Iterator[psutil.Process]:
    command = ["-m", "celery", "-A", "bench.bare_app", "worker", "-Q", "bare1", "-l", "INFO"]
    command += ["-c", str(CONCURRENCY), "-n", "bare@here", "--without-mingle", "--without-gossip"]
    with running(command, environ, where / "bare.log") as process:
        yield psutil.Process(process.pid)


@contextmanager
def running(command: list[str], environ: dict[str, str], log: Path) -> Iterator[Popen[bytes]]:
    with ExitStack() as stack:
        sink = stack.enter_context(log.open("wb"))
        process = Popen(
            [sys.executable, *command], cwd=servers.ROOT, env=environ, stdout=sink, stderr=STDOUT
        )
        stack.callback(end, process)
        servers.wait_for(lambda: "ready." in log.read_text(), 60)
        yield process


def end(process: Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()

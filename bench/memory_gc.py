"""Memory that a worker process gives back when it is asked, beside a plain ``gc.collect()``.

Each process holds the same garbage, with live objects strewn in between. The plain way collects in
the process itself; ours asks from outside, by a signal, and has free pages returned to the kernel.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from bench import report, servers

LIMIT_MS = 100.0
HOARDER = """
import gc, sys, time
from pathlib import Path
from recovery.components.system import collecting

gc.disable()
class Node:
    pass
live = []
for number in range(int(sys.argv[2])):
    node = Node()
    node.self, node.rest = node, bytearray(1000)
    if number % 64 == 0:
        live.append(bytearray(1000))
del node
if sys.argv[1] != "plain":
    collecting.offer(Path(sys.argv[1]))
print("hoarding", flush=True)
while sys.stdin.readline():
    began = time.perf_counter()
    gc.collect()
    print(time.perf_counter() - began, flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100_000, help="objects of 1 kB in cycles")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    ours, plain = [], []
    for _ in range(chosen.rounds):
        plain.append(collected_by_itself(chosen.n))
        ours.append(asked(chosen.n))
    seconds, baseline = (min(each[0] for each in side) for side in (ours, plain))
    freed, left = (max(each[1] for each in side) for side in (ours, plain))
    ratio = round(seconds / baseline, 3)
    print(f"gc.collect()  {baseline * 1000:.1f} ms, gave {left:.1f} MB back")
    print(f"memory_gc     {seconds * 1000:.1f} ms, gave {freed:.1f} MB back")
    report.finish(
        "memory_gc",
        n=chosen.n,
        unit="ms",
        ours={"best": round(seconds * 1000, 1), "freed_mb": round(freed, 1)},
        baseline={"best": round(baseline * 1000, 1), "freed_mb": round(left, 1)},
        ratio=ratio,
        limit=LIMIT_MS,
        ok=seconds * 1000 <= LIMIT_MS and freed > left,
    )


def collected_by_itself(count: int) -> tuple[float, float]:
    """Seconds of a plain collection, and the MB by which the process shrank."""
    process = hoarder("plain", count)
    before = resident(process)
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("no pipes")
    process.stdin.write("\n")
    process.stdin.flush()
    seconds = float(process.stdout.readline())
    shrank = before - resident(process)
    process.communicate()
    return seconds, shrank


def asked(count: int) -> tuple[float, float]:
    from recovery.components.system.collecting import ask

    with servers.folder() as where:
        process = hoarder(str(where), count)
        before = resident(process)
        began = time.perf_counter()
        (answer,) = ask(Path(where), lambda: 30.0)
        seconds = time.perf_counter() - began
        if not answer.answered:
            raise RuntimeError("no answer")
        shrank = before - resident(process)
        process.communicate()
    return seconds, shrank


def hoarder(how: str, count: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOARDER, how, str(count)],
        cwd=servers.ROOT,
        env=dict(os.environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    if process.stdout is None or process.stdout.readline() != "hoarding\n":
        raise RuntimeError("the process did not start")
    return process


def resident(process: subprocess.Popen[str]) -> float:
    return float(psutil.Process(process.pid).memory_info().rss) / 1e6


if __name__ == "__main__":
    main()

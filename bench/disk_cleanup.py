"""Old files removed by ``disk_cleanup``, beside ``find -mtime +1 -delete`` on an identical tree.

The remedy does more: it surveys first, asks the kernel whether anybody has a file open, never
follows a link, and lists what goes. All old files must go here, which is its slowest case.

Twice: ``settled`` on the disk, as old files are, and ``fresh``, still in the filesystem's memory,
where removing costs next to nothing and our own work counts most. The limit is for the former.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from bench import report, servers

LIMIT = 2.0
PER_FOLDER = 100
DAY = 86_400
FEW = 10_000
FLAT = 1.25
"""How much more memory the largest tree may take than the smallest one, as a factor."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100_000, help="files, half of them old")
    parser.add_argument("--many", type=int, default=1_000_000, help="files, for memory alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clean", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.clean:
        print(json.dumps(clean(chosen.clean)))
        return
    sides = {"fresh": compare(chosen.n, chosen.rounds, settled=False)}
    sides["settled"] = compare(chosen.n, chosen.rounds, settled=True)
    peaks = {FEW: measure("ours", FEW)["peak_mb"], chosen.n: sides["fresh"]["ours"][0]["peak_mb"]}
    if chosen.many > chosen.n:
        peaks[chosen.many] = measure("ours", chosen.many)["peak_mb"]
    print(f"peak resident memory in MB by files: {peaks}")
    best = {
        name: {who: min(each["seconds"] for each in runs) for who, runs in side.items()}
        for name, side in sides.items()
    }
    ratios = {name: round(side["ours"] / side["find"], 3) for name, side in best.items()}
    print(f"ratio to find: {ratios}")
    report.finish(
        "disk_cleanup",
        n=chosen.n,
        unit="s",
        ours={name: round(side["ours"], 3) for name, side in best.items()} | {"peak_mb": peaks},
        baseline={name: round(side["find"], 3) for name, side in best.items()},
        ratio=ratios,
        limit={"settled": LIMIT},
        ok=ratios["settled"] <= LIMIT and max(peaks.values()) <= min(peaks.values()) * FLAT,
    )


def compare(count: int, rounds: int, *, settled: bool) -> dict[str, list[dict[str, float]]]:
    measured: dict[str, list[dict[str, float]]] = {"ours": [], "find": []}
    for number in range(rounds):
        # Whoever goes second finds a warmer cache, so they take turns.
        for who in ("ours", "find") if number % 2 else ("find", "ours"):
            measured[who].append(measure(who, count, settled=settled))
        seconds = ", ".join(f"{who} {runs[-1]['seconds']:.3f} s" for who, runs in measured.items())
        print(f"{'settled' if settled else 'fresh'} {number + 1}: {seconds}", flush=True)
    return measured


def measure(who: str, count: int, *, settled: bool = False) -> dict[str, float]:
    """Seconds, and for ours the peak of memory, of one cleanup of a new tree."""
    with servers.folder() as where:
        root = where / "tree"
        tree(root, count)
        if settled:
            os.sync()
        done = in_a_process(root) if who == "ours" else {"seconds": find(root)}
        left = sum(len(files) for _, _, files in os.walk(root))
        if left != count - count // 2:
            raise RuntimeError(f"{who} left {left} files of {count}")
    return done


def tree(root: Path, count: int) -> None:
    """``count`` files of one block; each second one was last written ten days ago."""
    now = time.time()
    for number in range(count):
        folder = root / str(number // PER_FOLDER)
        if number % PER_FOLDER == 0:
            folder.mkdir(parents=True)
        path = folder / str(number)
        path.write_bytes(b"x")
        when = now - 10 * DAY if number % 2 else now + DAY
        os.utime(path, (when, when))


def find(root: Path) -> float:
    began = time.perf_counter()
    command = ["find", str(root), "-type", "f", "-mtime", "+1", "-delete"]
    subprocess.run(command, check=True)
    return time.perf_counter() - began


def in_a_process(root: Path) -> dict[str, float]:
    """A process of its own, whose peak of memory is that of one cleanup."""
    command = [sys.executable, "-m", "bench.disk_cleanup", "--clean", str(root)]
    done = subprocess.run(command, cwd=servers.ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def clean(root: Path) -> dict[str, float]:
    from recovery.components.system.disk_cleanup import DiskCleanup, disk_cleanup
    from recovery.components.system.target import Band, HostTarget, HostThresholds
    from tests.journals import MemoryJournal

    # Never well, so that all old files go; old by their last change of any kind as well.
    limits = HostThresholds(disk_usage_percent=Band(unhealthy=0.02, healthy=0.01))
    parameters = DiskCleanup(cleanup_paths=(str(root),), preserve_days=1e-9)
    journal = MemoryJournal(state_dir=root.parent, seconds=1800)
    began = time.perf_counter()
    disk_cleanup.remedy(HostTarget(thresholds=limits), parameters, journal)
    seconds = time.perf_counter() - began
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "peak_mb": round(peak_kb / 1024, 1)}


if __name__ == "__main__":
    main()

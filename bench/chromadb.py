"""ChromaDB: snapshots, rollbacks and probes of a served directory, each beside the same by hand.

By hand a snapshot is tar and zstd (its default level, all cores) on a stopped directory, and a
rollback is to stop the server, unpack the very archive of our snapshot where the directory was, and
start the server. Neither looks at what it did. A snapshot is compared without its verification and
without the time that a server takes to end and start, which are not in the baseline either, and
printed beside it; a rollback is compared whole, with all that it verifies. Most of that is the
first query, for which a server loads its index, and what it takes by hand is printed as well. Both
take turns in every round, so that whatever else the machine does meets them alike.

``--sizes 500000 --rounds 2`` measures a large one: some 20 minutes, most of them to build it, 4 GB
of disk and 3 GB of memory.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import report, servers
from recovery.components.chromadb.api import ChromaServer
from recovery.components.chromadb.findings import Budget
from recovery.components.chromadb.probe import light, probe
from recovery.components.chromadb.rollback_undo import discard
from recovery.components.chromadb.server import ServerProcess
from recovery.components.chromadb.snapshot_rollback import SnapshotRollback, snapshot_rollback
from recovery.components.chromadb.snapshots import taking
from recovery.components.chromadb.target import ChromaTarget
from recovery.deadline import Deadline
from tests.chroma import ChromaDirectory, ManagedChroma, noise
from tests.journals import MemoryJournal

DIMENSION = 64
SIZES = (2_000, 50_000)
SECONDS = 600.0
GLANCES = 20
LIMITS = {
    "snapshot": 1.5,
    "rollback": 1.5,
    "rollback_to_answer": 1.5,
    "shallow_ms": 50.0,
    "deep_s": 2.0,
}
UP_TO = {"deep_s": 50_000, "rollback": 50_000}
"""The sizes for which a limit holds. A rollback proves itself by a query, for which a server loads
its index: past this size that alone takes as long as half a restart, which the baseline ends with.
"""


@dataclass(slots=True)
class Bench:
    """One served directory; what is measured is printed and collected, in seconds."""

    where: Path
    count: int
    rounds: int
    managed: ManagedChroma
    found: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.managed.directory.path

    @property
    def target(self) -> ChromaTarget:
        directory = self.where / "snapshots"
        return self.managed.target(
            collections={"docs": self.count},
            snapshots={"directory": directory, "timeout": SECONDS, "keep": 2},
        )

    def note(self, name: str, seconds: list[float]) -> None:
        known = self.found[name] = report.summary(seconds)
        said = f"{known['p50']:8.3f} s  p95 {known['p95']:8.3f} s  of {len(seconds)}"
        print(f"  {name:38} {said}", flush=True)

    def probes(self) -> None:
        probe(self.target, SECONDS)
        self.note("shallow probe", [timed(lambda: light(self.target, 60)) for _ in range(GLANCES)])
        self.note("deep probe", [timed(lambda: probe(self.target, 60)) for _ in range(self.rounds)])
        print(f"  deep probe: peak {self._probe_mb():.0f} MB of its child", flush=True)

    def _probe_mb(self) -> float:
        """The peak memory of a probe's child, by a process that has no other children."""
        measure = "import resource, sys; from pathlib import Path;"
        measure += "from recovery.components.chromadb.probe import probe;"
        measure += "from recovery.components.chromadb.target import ChromaTarget;"
        measure += "probe(ChromaTarget(path=Path(sys.argv[1])), 60);"
        measure += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
        command = [sys.executable, "-c", measure, str(self.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(done.stdout)

    def snapshots(self) -> None:
        taken: dict[str, list[float]] = defaultdict(list)
        # The first in a process imports what a worker has imported long ago.
        self._take("quiesce")
        for _ in range(self.rounds):
            for method in ("quiesce", "stop"):
                for name, seconds in self._take(method).items():
                    taken[f"snapshot, {method}: {name}"].append(seconds)
            taken["by hand: tar and zstd, stopped"].append(self._by_hand())
        for name, all_of_it in taken.items():
            self.note(name, all_of_it)
        (newest, *_) = taking.settings(self.target)[1].snapshots()
        by_hand = (self.where / "by-hand.tar.zst").stat().st_size
        print(f"  archive {newest.archive_bytes / 1e6:.1f} MB, by hand {by_hand / 1e6:.1f} MB")

    def _take(self, method: Any) -> dict[str, float]:
        began = time.perf_counter()
        made = taking.take(self.target, "chromadb/bench", method=method)
        took = time.perf_counter() - began
        down = made.stopped_seconds
        return {
            # Ending and starting is the server's own time, which is not in the baseline either.
            "made": took - made.verified_seconds - down,
            "verified": made.verified_seconds,
            "server down": down,
            "all of it": took,
        }

    def _by_hand(self) -> float:
        server = ServerProcess(self.target, Deadline(SECONDS).remaining)
        server.stop()
        took = timed(lambda: pack(self.path, self.where / "by-hand.tar.zst"))
        server.start()
        return took

    def rollbacks(self) -> None:
        ours, by_hand, answers, down = [], [], [], []
        for number in range(self.rounds):
            by_hand.append(self._restore_by_hand())
            answers.append(by_hand[-1] + timed(self._ask))
            noise(self.managed.directory.segment / "data_level0.bin")
            journal = MemoryJournal(self.where, recovery_id=f"bench-{number}", seconds=SECONDS)
            ours.append(timed(lambda: self._roll_back(journal)))  # noqa: B023 - called at once
            at = {step.text: step.at_seconds for step in journal.steps}
            down.append(at["server started"] - at["server stopped"])
            discard(self.target, SnapshotRollback(), journal.keep())
        self.note("rollback", ours)
        self.note("rollback: server down", down)
        self.note("by hand: stop, unpack, start", by_hand)
        self.note("by hand: until it answers a query", answers)
        if not probe(self.target, SECONDS).healthy:
            raise RuntimeError("the restored server is not healthy")

    def _ask(self) -> None:
        with ChromaServer(self.target, self.target.server or "", Budget(SECONDS)) as server:
            (docs,) = (one for one in server.collections(("docs",)) if one.name == "docs")
            docs.query([1.0] * DIMENSION, 1)

    def _roll_back(self, journal: MemoryJournal) -> None:
        if snapshot_rollback.remedy is not None:
            snapshot_rollback.remedy(self.target, SnapshotRollback(), journal)

    def _restore_by_hand(self) -> float:
        """The archive of our own snapshot, which is the same work for both."""
        (newest, *_) = taking.settings(self.target)[1].snapshots()
        archive = taking.settings(self.target)[1].archive(newest.name)
        server = ServerProcess(self.target, Deadline(SECONDS).remaining)
        before = self.path.with_name("before")

        def restore() -> None:
            server.stop()
            self.path.rename(before)
            self.path.mkdir()
            subprocess.run(["tar", "--zstd", "-xf", archive, "-C", self.path], check=True)
            server.start()

        took = timed(restore)
        shutil.rmtree(before)
        return took

    def ratios(self) -> dict[str, float]:
        found = {name: known["p50"] for name, known in self.found.items()}
        return {
            # The way that the policy takes unless it says otherwise.
            "snapshot": round(
                found["snapshot, quiesce: made"] / found["by hand: tar and zstd, stopped"], 2
            ),
            "rollback": round(found["rollback"] / found["by hand: stop, unpack, start"], 2),
            "rollback_to_answer": round(
                found["rollback"] / found["by hand: until it answers a query"], 2
            ),
            "shallow_ms": round(found["shallow probe"] * 1000, 1),
            "deep_s": found["deep probe"],
        }


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def pack(source: Path, archive: Path) -> None:
    """As one would, and on the disk when it returns, like ours."""
    command = f"tar -C {source} -cf - . | zstd -q -3 -T0 -f -o {archive} && sync {archive}"
    subprocess.run(["bash", "-o", "pipefail", "-c", command], check=True)


def measure(where: Path, count: int, rounds: int) -> Bench:
    directory = ChromaDirectory.build(where / "chroma", count=count, dimension=DIMENSION)
    bench = Bench(where, count, rounds, ManagedChroma(directory, name=f"bench-{count}").start())
    try:
        print(f"{count} × {DIMENSION}", flush=True)
        bench.probes()
        bench.snapshots()
        bench.rollbacks()
    finally:
        bench.managed.kill()
    return bench


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    said = parser.parse_args()
    found = {}
    with servers.folder() as where:
        os.environ["RECOVERY_STATE_DIR"] = str(where / "state")
        for count in said.sizes:
            found[count] = measure(where / str(count), count, said.rounds)
            shutil.rmtree(where / str(count))
    ratios = {str(count): bench.ratios() for count, bench in found.items()}
    report.finish(
        "chromadb",
        n=said.rounds,
        unit="s",
        ours={str(count): bench.found for count, bench in found.items()},
        baseline="by hand",
        ratio=ratios,
        limit=LIMITS,
        ok=all(
            ratio <= LIMITS[name]
            for count, named in ratios.items()
            for name, ratio in named.items()
            if int(count) <= UP_TO.get(name, int(count))
        ),
    )


if __name__ == "__main__":
    main()

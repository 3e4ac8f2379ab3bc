"""An index rebuilt from damaged files, beside giving the same vectors to a new collection.

Both take turns in every round. ``--sizes 500000 --rounds 1`` measures a large one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from bench import report, servers
from recovery.components.chromadb.index_rebuild import IndexRebuild, index_rebuild
from recovery.components.chromadb.probe import probe
from recovery.components.chromadb.target import ChromaTarget
from tests.chroma import ROOT, ChromaDirectory
from tests.journals import MemoryJournal

SIZES = (2_000, 50_000)
DIMENSION = 64
REBUILD_LIMIT = 1.3
SECONDS = 60.0

# What anybody would do who has the vectors: give them to Chroma, and wait until it has saved them.
RAW_ADD = """
import sys
import chromadb, numpy
from chromadb.config import Settings
path, size, dimension = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
vectors = numpy.random.default_rng(7).normal(size=(size, dimension)).astype("float32")
client = chromadb.PersistentClient(path, settings=Settings(anonymized_telemetry=False))
docs = client.create_collection("docs", configuration={"hnsw": {"space": "cosine"}})
for first in range(0, size, 5_000):
    last = min(first + 5_000, size)
    docs.add(ids=[f"id-{n}" for n in range(first, last)], embeddings=vectors[first:last])
assert docs.count() == size
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The rounds of one size; times in seconds."""

    size: int
    ours: list[float]
    baseline: list[float]
    note: str = ""

    @property
    def ratio(self) -> float:
        return round(statistics.median(self.ours) / statistics.median(self.baseline), 2)

    def line(self) -> str:
        ours, baseline = report.summary(self.ours), report.summary(self.baseline)
        return (
            f"{self.size:8} {ours['p50']:8.2f} {ours['p95']:8.2f}"
            f" {baseline['p50']:8.2f} {baseline['p95']:8.2f}"
            f" {self.ratio:6.2f} {REBUILD_LIMIT:6.2f}  {self.note}"
        )


def rebuild(size: int, where: Path) -> tuple[float, float, str]:
    """An index of which the header is gone, against adding the same vectors to a new collection.

    Seconds of both, and what was built.
    """
    directory = ChromaDirectory(where / "chroma")
    command = [sys.executable, "-c", RAW_ADD, str(directory.path), str(size), str(DIMENSION)]
    began = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True)
    baseline = time.perf_counter() - began

    (directory.segment / "header.bin").unlink()
    target = ChromaTarget(path=directory.path, collections={"docs": size})
    if probe(target, SECONDS).healthy:
        raise RuntimeError("the damage does not show")
    journal = MemoryJournal(where / "state", seconds=3_600)
    began = time.perf_counter()
    if index_rebuild.remedy is not None:
        index_rebuild.remedy(target, IndexRebuild(), journal)
    ours = time.perf_counter() - began

    after = probe(target, SECONDS)
    if not after.healthy:
        raise RuntimeError(f"not repaired: {after}")
    built = next(step for step in journal.steps if "found right" in step.text)
    note = (
        f"{built.figures['records']} vectors, peak {built.figures['peak_mb']} MB; {after.summary}"
    )
    return ours, baseline, note


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    said = parser.parse_args()
    print(
        f"{'vectors':>8} {'rebuild':>8} {'p95':>8} {'raw add':>8} {'p95':>8}"
        f" {'ratio':>6} {'limit':>6}  of {said.rounds}"
    )
    rows = []
    for size in said.sizes:
        row = Row(size=size, ours=[], baseline=[])
        for _ in range(said.rounds):
            with servers.folder() as where:
                os.environ["RECOVERY_STATE_DIR"] = str(where / "state")
                ours, baseline, note = rebuild(size, where)
            row = replace(
                row, ours=[*row.ours, ours], baseline=[*row.baseline, baseline], note=note
            )
        rows.append(row)
        print(row.line(), flush=True)
    report.finish(
        "chromadb_rebuild",
        n=said.rounds,
        unit="s",
        ours={str(row.size): report.summary(row.ours) for row in rows},
        baseline={str(row.size): report.summary(row.baseline) for row in rows},
        ratio={str(row.size): row.ratio for row in rows},
        limit=REBUILD_LIMIT,
        ok=all(row.ratio <= REBUILD_LIMIT for row in rows),
    )


if __name__ == "__main__":
    main()

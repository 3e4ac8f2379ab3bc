"""An index rebuilt from damaged files, beside giving the same vectors to a new collection.

``--sizes 500000`` measures a large one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
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
    """One measurement; times in seconds."""

    size: int
    ours: float
    baseline: float
    note: str = ""

    @property
    def ratio(self) -> float:
        return round(self.ours / self.baseline, 2)

    def line(self) -> str:
        return (
            f"{self.size:8} {self.ours:8.2f} {self.baseline:8.2f}"
            f" {self.ratio:6.2f} {REBUILD_LIMIT:6.2f}  {self.note}"
        )


def rebuild(size: int, where: Path) -> Row:
    """An index of which the header is gone, against adding the same vectors to a new collection."""
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
    return Row(size=size, ours=ours, baseline=baseline, note=note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    sizes = parser.parse_args().sizes
    print(f"{'vectors':>8} {'rebuild':>8} {'raw add':>8} {'ratio':>6} {'limit':>6}")
    rows = []
    for size in sizes:
        with servers.folder() as where:
            os.environ["RECOVERY_STATE_DIR"] = str(where / "state")
            rows.append(rebuild(size, where))
        print(rows[-1].line(), flush=True)
    report.finish(
        "chromadb_rebuild",
        n=len(rows),
        unit="s",
        ours={str(row.size): round(row.ours, 2) for row in rows},
        baseline={str(row.size): round(row.baseline, 2) for row in rows},
        ratio={str(row.size): row.ratio for row in rows},
        limit=REBUILD_LIMIT,
        ok=all(row.ratio <= REBUILD_LIMIT for row in rows),
    )


if __name__ == "__main__":
    main()

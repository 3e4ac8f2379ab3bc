"""A collection restored and rebuilt through a server's API, beside adding its records to the same.

``--sizes 200000`` measures a large one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import report, servers
from recovery.components.chromadb.index_rebuild import IndexRebuild, index_rebuild
from recovery.components.chromadb.probe import probe
from recovery.components.chromadb.snapshot_rollback import SnapshotRollback, snapshot_rollback
from recovery.components.chromadb.snapshots import taking
from recovery.components.chromadb.target import ChromaTarget
from tests.chroma import ROOT, ChromaDirectory, ServedChroma
from tests.components.chromadb.serving import unlinked
from tests.journals import MemoryJournal

SIZES = (2_000, 20_000)
DIMENSION = 64
LIMIT = 4.0
"""What is read, added, read again and compared costs more than what is only added."""
SECONDS = 60.0

# What anybody would do who has the records: give them to the server, and ask it once.
RAW_ADD = """
import sys, time
import chromadb, numpy
from chromadb.config import Settings
port, name, size, dimension = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
vectors = numpy.random.default_rng(7).normal(size=(size, dimension)).astype("float32")
client = chromadb.HttpClient("127.0.0.1", port, settings=Settings(anonymized_telemetry=False))
began = time.perf_counter()
docs = client.create_collection(name, configuration={"hnsw": {"space": "cosine"}})
for first in range(0, size, 5_000):
    ids = [f"id-{n}" for n in range(first, min(first + 5_000, size))]
    docs.add(ids=ids, embeddings=vectors[first:first + 5_000], documents=ids)
docs.query(query_embeddings=vectors[:1], n_results=1)
assert docs.count() == size
print(time.perf_counter() - began)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement; times in seconds."""

    what: str
    size: int
    ours: float
    baseline: float
    note: str = ""

    @property
    def ratio(self) -> float:
        return round(self.ours / self.baseline, 2)

    def line(self) -> str:
        return (
            f"{self.what:9} {self.size:8} {self.ours:8.2f} {self.baseline:8.2f}"
            f" {self.ratio:6.2f} {LIMIT:6.2f}  {self.note}"
        )


def restored(target: ChromaTarget, journal: MemoryJournal) -> None:
    if snapshot_rollback.remedy is not None:
        snapshot_rollback.remedy(target, SnapshotRollback(), journal)


def rebuilt(target: ChromaTarget, journal: MemoryJournal) -> None:
    if index_rebuild.remedy is not None:
        index_rebuild.remedy(target, IndexRebuild(), journal)


def lose_header(directory: ChromaDirectory) -> None:
    (directory.segment / "header.bin").unlink()


ROADS: dict[str, tuple[Callable[[ChromaDirectory], None], Callable[..., None]]] = {
    "rollback": (lose_header, restored),
    "rebuild": (unlinked, rebuilt),
}


def add(server: ServedChroma, name: str, size: int) -> float:
    """Seconds, without those in which the client starts."""
    command = [sys.executable, "-c", RAW_ADD, str(server.port), name, str(size), str(DIMENSION)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return float(done.stdout)


def measure(what: str, size: int, where: Path) -> Row:
    damage, repair = ROADS[what]
    place = where / "chroma"
    place.mkdir()
    server = ServedChroma(ChromaDirectory(place)).start()
    target = ChromaTarget(
        url=server.url,
        collections={"docs": size},
        answer_timeout=SECONDS,
        snapshots={"directory": where / "snapshots"},
    )
    try:
        baseline = add(server, "docs", size)
        taking.take(target, "chromadb/default")
        server.stop()
        damage(server.directory)
        server.start()
        before = probe(target, SECONDS)
        if before.healthy:
            raise RuntimeError("the damage does not show")
        began = time.perf_counter()
        repair(target, MemoryJournal(where / "state", seconds=3_600))
        ours = time.perf_counter() - began
        after = probe(target, SECONDS)
        if not after.healthy:
            raise RuntimeError(f"not repaired: {after}")
        note = f"{before.failure_type}; afterwards {after.summary}"
        return Row(what=what, size=size, ours=ours, baseline=baseline, note=note)
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    sizes = parser.parse_args().sizes
    print(f"{'':9} {'records':>8} {'ours':>8} {'raw add':>8} {'ratio':>6} {'limit':>6}")
    rows = []
    for size in sizes:
        for what in ROADS:
            with servers.folder() as where:
                os.environ["RECOVERY_STATE_DIR"] = str(where / "state")
                rows.append(measure(what, size, where))
            print(rows[-1].line(), flush=True)
    largest = [row for row in rows if row.size == max(sizes)]
    report.finish(
        "chromadb_served",
        n=len(rows),
        unit="s",
        ours={f"{row.what} {row.size}": round(row.ours, 2) for row in rows},
        baseline={f"{row.what} {row.size}": round(row.baseline, 2) for row in rows},
        ratio={f"{row.what} {row.size}": row.ratio for row in rows},
        limit=LIMIT,
        # Of a small one the fixed costs are most: looks, an archive, two renames.
        ok=all(row.ratio <= LIMIT for row in largest),
    )


if __name__ == "__main__":
    main()

"""The child process that builds an index: ``python -m`` this module, order on stdin.

It reads the damaged files with numpy and the database with SQLite, and gives what it reads to a
Chroma of its own in a private folder, which writes an index in Chroma's own format. The target is
only read.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from recovery.components.chromadb.rebuilding import late, orders, stock
from recovery.components.chromadb.rebuilding.orders import BuildOrder, Progress, say
from recovery.components.chromadb.rebuilding.salvage import Matrix, salvage
from recovery.components.chromadb.rebuilding.supplement import Supplement

PAGE = 5_000
"""Below what one call of Chroma's takes, and all that is in memory beside the index itself."""

SAMPLE = 16
CLOSE = 1e-3

Vectors = Iterator[tuple[list[str], Matrix]]


def main() -> int:
    order = BuildOrder(**orders.begin())
    try:
        say(verdict=Building(order).run())
    except sqlite3.OperationalError as error:
        if "locked" not in str(error) and "busy" not in str(error):
            raise
        say(verdict={orders.LOCKED: str(error)})
    return 0


class Building:
    """One index, from everything that still has a vector."""

    def __init__(self, order: BuildOrder) -> None:
        self.order = order
        self.place = Path(order.place)
        with stock.reading(Path(order.path), order.patience) as connection:
            self.stock = stock.read(connection, order.collection, order.segment)
        self.salvaged = salvage(Path(order.path), self.stock)
        self.changed = late.replay(late.unsaved(self.stock), self.salvaged.rows.keys())
        self.wanted = late.wanted(self.stock)

    def run(self) -> dict[str, Any]:
        files = {name for name in self.salvaged.rows if name in self.wanted} - self.changed.keys()
        log = {name: said for name, said in self.changed.items() if said and name in self.wanted}
        rest = self.wanted - files - log.keys()
        supplement = Supplement(self.place / orders.SUPPLEMENT, self.stock.dimension or 0)
        other = rest & set(supplement.names())
        missing = rest - other
        verdict = {
            "records": len(self.wanted),
            "from_files": len(files),
            "from_log": len(log),
            "from_elsewhere": len(other),
            "missing": len(missing),
            "by_order": self.salvaged.by_order,
            "lengths_lost": self.salvaged.lengths_lost,
            "why": self.salvaged.why,
            "dimension": self.stock.dimension,
            "saved": self.stock.saved,
            "end": self.stock.end,
            "segment": self.stock.segment,
            "embedding_function": self.stock.embedding_function.get("name"),
        }
        if missing:
            self._leave(missing)
        elif self.wanted:
            vectors = _chained(
                self.salvaged.vectors(files, PAGE),
                _from_log(log),
                supplement.vectors(other, PAGE),
            )
            verdict["index"] = self._build(vectors)
        verdict["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        return verdict

    def _leave(self, missing: set[str]) -> None:
        """The names of those that nothing here has a vector of, for whoever can help."""
        file = self.place / orders.MISSING
        file.write_text("".join(f"{json.dumps(name)}\n" for name in sorted(missing)))

    def _build(self, vectors: Vectors) -> str:
        from recovery.components.chromadb.rebuilding.scratch import Scratch

        total = len(self.wanted)
        progress = Progress(total, "indexed")
        remembered = _Sample(total)
        with Scratch(self.place / orders.INDEX, self.stock, total) as scratch:
            for names, matrix in _regrouped(vectors, scratch.sizes()):
                scratch.add(names, matrix)
                remembered.offer(names, matrix)
                progress.add(len(names))
        say(stage="open", name=self.stock.name)
        return str(scratch.verify(remembered.taken))


class _Sample:
    """A few records with the vectors that were given for them, drawn evenly."""

    def __init__(self, total: int) -> None:
        self._share = SAMPLE / max(total, 1)
        self.taken: dict[str, list[float]] = {}

    def offer(self, names: list[str], matrix: Matrix) -> None:
        drawn = random.sample(range(len(names)), min(len(names), self._portion(len(names))))
        self.taken |= {names[number]: matrix[number].tolist() for number in drawn}

    def _portion(self, offered: int) -> int:
        return max(int(offered * self._share), 1) if len(self.taken) < SAMPLE else 0


def _from_log(log: dict[str, bytes]) -> Vectors:
    names = list(log)
    for start in range(0, len(names), PAGE):
        part = names[start : start + PAGE]
        yield part, np.stack([np.frombuffer(log[name], dtype="<f4") for name in part])


def _chained(*sources: Vectors) -> Vectors:
    for source in sources:
        yield from source


def _regrouped(vectors: Vectors, sizes: Iterable[int]) -> Vectors:
    """The same vectors in portions of exactly these sizes."""
    names: list[str] = []
    parts: list[Matrix] = []
    for size in sizes:
        while len(names) < size:
            more, matrix = next(vectors)
            names += more
            parts.append(matrix)
        whole = np.concatenate(parts)
        yield names[:size], whole[:size]
        names, parts = names[size:], [whole[size:]]


if __name__ == "__main__":
    # Chroma's threads would keep a finished child alive.
    code = main()
    sys.stdout.flush()
    os._exit(code)

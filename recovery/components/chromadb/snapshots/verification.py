"""The child process that opens a restored copy with Chroma and reads all of it.

``python -m`` this module, order on stdin, progress and answer a line each on stdout. It opens the
copy in place, which changes it: whoever asks throws the copy away afterwards. It may die of what it
opens, which is an answer too.
"""

from __future__ import annotations

import json
import resource
import signal
import sqlite3
import sys
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recovery.components.chromadb.database import NAME
from recovery.components.chromadb.findings import Budget

PAGE = 1_000
"""Records read at once: more would cost memory and no less time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    path: str
    timeout: float


def main() -> int:
    order = Order(**json.load(sys.stdin))
    # Whoever asked may die; this process then ends by itself, and leaves no huge core file.
    signal.setitimer(signal.ITIMER_REAL, order.timeout + 1.0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    _say(verified=_verify(Path(order.path), Budget(order.timeout)))
    return 0


def _say(**what: Any) -> None:
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


def _verify(path: Path, budget: Budget) -> dict[str, Any]:
    """Every collection of every database: counted, read with its vectors, and queried."""
    from recovery.components.chromadb import opened, sampling

    places = _places(path)
    collections, read, queried = [], 0, 0
    for tenant, database in places:
        try:
            for found in opened.open_all(path, tenant, database):
                _say(reading=found.name)
                count = found.count()
                seen = _read(found, count)
                if seen != count:
                    return {"problem": f"{found.name}: {seen} of {count} records can be read"}
                judged = sampling.examine(found, budget, latency_ms=float("inf"))
                if judged.finding is not None:
                    return {"problem": judged.finding.summary}
                queried += int(judged.figures.get("queried") or 0)
                collections.append(
                    {"tenant": tenant, "database": database, "name": found.name, "records": count}
                )
                read += seen
        except sampling.CollectionError as error:
            return {"problem": str(error)}
    return {"collections": collections, "records": read, "queried": queried}


def _places(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(f"{(path / NAME).as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(
            "SELECT tenant_id, name FROM databases ORDER BY tenant_id, name"
        ).fetchall()


def _read(collection: Any, count: int) -> int:
    """How many records come with a vector of finite numbers, all of one dimension."""
    seen, dimensions = 0, set()
    for offset in range(0, count, PAGE):
        vectors = collection.vectors(offset, PAGE)
        if vectors is None:
            return seen
        seen += len(vectors)
        dimensions.add(vectors.shape[1])
    return seen if len(dimensions) <= 1 else 0


if __name__ == "__main__":
    sys.exit(main())

"""The child process that fills a private Chroma directory with the records of an export.

``python -m`` this module, order on stdin, progress and answer a line each on stdout. It may die of
what it reads, which is an answer too.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recovery.components.chromadb import answers
from recovery.components.chromadb.snapshots import records

PAGE = 1_000
_SETTINGS = frozenset(
    {"space", "ef_construction", "ef_search", "max_neighbors", "resize_factor", "sync_threshold"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """``collections``: name, file below ``exported``, and settings, of each."""

    exported: str
    into: str
    tenant: str
    database: str
    collections: list[dict[str, Any]]
    timeout: float


def main() -> int:
    order = Order(**json.load(sys.stdin))
    # Whoever asked may die; this process then ends by itself, and leaves no huge core file.
    signal.setitimer(signal.ITIMER_REAL, order.timeout + 1.0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    _say(imported=_import(order))
    return 0


def _say(**what: Any) -> None:
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


def _import(order: Order) -> dict[str, int]:
    from recovery.components.chromadb import opened

    found = {}
    with opened.making(Path(order.into), order.tenant, order.database) as client:
        for one in order.collections:
            _say(reading=one["name"])
            made = client.create_collection(
                one["name"], configuration=_configuration(one), embedding_function=None
            )
            for page in records.pages(Path(order.exported) / one["file"], PAGE):
                made.upsert(**_given(page))
            found[one["name"]] = made.count()
    return found


def _configuration(one: dict[str, Any]) -> dict[str, Any]:
    """How it is searched, which is what a verification can see of its settings."""
    kind = answers.index_settings(one["settings"].get("configuration_json"))
    return {"hnsw": {key: kind[key] for key in _SETTINGS & set(kind) if kind[key] is not None}}


def _given(page: records.Records) -> dict[str, Any]:
    """Without columns that are empty: the client refuses some of them."""
    return {column: values for column, values in page.items() if any(map(_is_given, values))}


def _is_given(value: object) -> bool:
    return value is not None


if __name__ == "__main__":
    sys.exit(main())

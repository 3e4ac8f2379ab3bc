"""The child process that embeds documents which a server handed out: order on stdin.

Like ``embedding``, whose directory is out of reach here: what is known comes in files.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from recovery.components.chromadb.rebuilding import embedding, orders
from recovery.components.chromadb.rebuilding.embedding import Embed, Unavailable
from recovery.components.chromadb.rebuilding.orders import Progress, TextsOrder, say
from recovery.components.chromadb.rebuilding.supplement import Supplement


def main() -> int:
    order = TextsOrder(**orders.begin())
    try:
        say(verdict=embed(order))
    except Unavailable as error:
        say(verdict={"unavailable": str(error)})
    return 0


def embed(order: TextsOrder) -> dict[str, Any]:
    """Raises ``Unavailable``."""
    place = Path(order.place)
    function = embedding.load(order.function, order.recorded)
    compared = _compare(place / orders.KNOWN, function, order.dimension)
    progress = Progress(sum(1 for _ in _records(place / orders.TEXTS)), "embedded")
    embedded = 0
    with Supplement(place / orders.SUPPLEMENT, order.dimension) as supplement:
        documents = ((one["id"], one["document"]) for one in _records(place / orders.TEXTS))
        for names, texts in embedding.pages(documents):
            supplement.add(names, embedding.call(function, texts, order.dimension))
            embedded += len(names)
            progress.add(len(names))
    return {"embedded": embedded, "compared": compared}


def _compare(known: Path, function: Embed, dimension: int) -> int:
    """How many known vectors were given once more. Raises ``Unavailable`` where others were."""
    survivors = list(_records(known))
    if not survivors:
        return 0
    given = embedding.call(function, [one["document"] for one in survivors], dimension)
    unlike = sum(
        embedding.cosine(np.asarray(one["vector"], dtype=np.float32), vector) < embedding.ALIKE
        for one, vector in zip(survivors, given, strict=True)
    )
    embedding.refuse_unlike(unlike, len(survivors))
    return len(survivors)


def _records(file: Path) -> Iterator[dict[str, Any]]:
    if file.exists():
        with file.open(encoding="utf-8") as source:
            yield from map(json.loads, source)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)

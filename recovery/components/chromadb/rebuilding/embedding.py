"""The child process that embeds documents anew: ``python -m`` this module, order on stdin.

The function is somebody else's code, which may want packages, a network and keys; it runs here and
nowhere else. Before its vectors count, it must give those that are still known once more.
"""

from __future__ import annotations

import importlib
import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from recovery.components.chromadb.rebuilding import late, orders, stock
from recovery.components.chromadb.rebuilding.orders import EmbedOrder, Progress, say
from recovery.components.chromadb.rebuilding.salvage import Matrix, Salvage, salvage
from recovery.components.chromadb.rebuilding.stock import Stock
from recovery.components.chromadb.rebuilding.supplement import Supplement

AT_ONCE = 64
SURVIVORS = 32
ALIKE = 0.9
"""The least cosine between a vector that is still known and the one that the function gives."""
MOST_UNLIKE = 0.25
"""The share of records that may have been given vectors of another origin."""

Embed = Callable[[list[str]], Any]


class Unavailable(Exception):
    """The function cannot be had, or is not the one that embedded this collection."""


def main() -> int:
    order = EmbedOrder(**orders.begin())
    try:
        say(verdict=embed(order))
    except Unavailable as error:
        say(verdict={"unavailable": str(error)})
    except sqlite3.OperationalError as error:
        if "locked" not in str(error) and "busy" not in str(error):
            raise
        say(verdict={orders.LOCKED: str(error)})
    return 0


def embed(order: EmbedOrder) -> dict[str, Any]:
    """Raises ``Unavailable``."""
    place = Path(order.place)
    missing = {json.loads(line) for line in (place / orders.MISSING).read_text().splitlines()}
    with stock.reading(Path(order.path), order.patience) as connection:
        found = stock.read(connection, order.collection, order.segment)
    function = load(order.function, found.embedding_function)
    salvaged = salvage(Path(order.path), found)
    compared = _compare(order, found, salvaged, function)
    progress = Progress(len(missing), "embedded")
    embedded = 0
    with Supplement(place / orders.SUPPLEMENT, found.dimension or 0) as supplement:
        for names, texts in pages(_documents(order, found, missing)):
            supplement.add(names, call(function, texts, found.dimension))
            embedded += len(names)
            progress.add(len(names))
    return {
        "embedded": embedded,
        "compared": compared,
        "without_document": len(missing) - embedded,
    }


def load(named: str, recorded: dict[str, Any]) -> Embed:
    """``module:attribute``, or a name of Chroma's, then with the settings that the collection has
    recorded for it. A class is called first. Raises ``Unavailable``."""
    module, _, attribute = named.partition(":")
    try:
        if attribute:
            found = getattr(importlib.import_module(module), attribute)
            found = found() if isinstance(found, type) else found
        else:
            found = _known(named, recorded)
    except Exception as error:
        # Somebody else's code: a missing package, a missing key, anything.
        raise Unavailable(f"{named} cannot be had: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise Unavailable(f"{named} is no function")
    function: Embed = found
    return function


def _known(named: str, recorded: dict[str, Any]) -> Any:
    from chromadb.utils.embedding_functions import known_embedding_functions

    if named not in known_embedding_functions:
        known = ", ".join(sorted(known_embedding_functions))
        raise LookupError(f"Chroma knows no embedding function {named!r}; it knows {known}")
    kind: Any = known_embedding_functions[named]
    settings = recorded.get("config") if recorded.get("name") == named else None
    return kind.build_from_config(settings) if settings else kind()


def call(function: Embed, texts: list[str], dimension: int | None) -> Matrix:
    """Raises ``Unavailable``."""
    try:
        given: Matrix = np.asarray(function(texts), dtype=np.float32)
    except Exception as error:
        raise Unavailable(f"the function failed: {type(error).__name__}: {error}") from error
    if given.shape != (len(texts), dimension) or not np.isfinite(given).all():
        shape = given.shape[-1] if given.ndim else 0
        raise Unavailable(f"the function gives {shape} dimensions; the collection has {dimension}")
    return given


def _documents(order: EmbedOrder, found: Stock, wanted: set[str]) -> Iterator[tuple[str, str]]:
    """Those that have one; without a document nothing can be embedded."""
    with stock.reading(Path(order.path), order.patience) as connection:
        for name, text in stock.documents(connection, found.metadata_segment, wanted):
            if text is not None:
                yield name, text


def pages(documents: Iterable[tuple[str, str]]) -> Iterator[tuple[list[str], list[str]]]:
    iterator = iter(documents)
    while page := list(islice(iterator, AT_ONCE)):
        yield [name for name, _ in page], [text for _, text in page]


def _compare(order: EmbedOrder, found: Stock, salvaged: Salvage, function: Embed) -> int:
    """How many known vectors were given once more. Raises ``Unavailable`` where others were."""
    known = dict(islice(_survivors(found, salvaged), SURVIVORS))
    unlike = compared = 0
    for names, texts in pages(_documents(order, found, set(known))):
        given = call(function, texts, found.dimension)
        for name, vector in zip(names, given, strict=True):
            compared += 1
            unlike += cosine(known[name], vector) < ALIKE
    refuse_unlike(unlike, compared)
    return compared


def refuse_unlike(unlike: int, compared: int) -> None:
    """Raises ``Unavailable`` where too many vectors that are known were given otherwise."""
    if unlike > compared * MOST_UNLIKE:
        raise Unavailable(
            f"the function gives other vectors than {unlike} of {compared} that are still known:"
            " it is not the one that embedded this collection"
        )


def _survivors(found: Stock, salvaged: Salvage) -> Iterator[tuple[str, Matrix]]:
    changed = late.replay(late.unsaved(found), salvaged.rows.keys())
    for name, vector in {**late.known(found), **changed}.items():
        if vector is not None:
            yield name, np.frombuffer(vector, dtype="<f4")
    few = set(islice(salvaged.rows.keys() - changed.keys(), SURVIVORS))
    for names, vectors in salvaged.vectors(few, SURVIVORS):
        yield from zip(names, vectors, strict=True)


def cosine(one: Matrix, other: Matrix) -> float:
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norms if norms else 1.0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)

"""The vectors of an index, read from its files without loading it.

``data_level0.bin`` has each vector with a label, the pickle the record of each label. Links and
header are not needed: where the header is damaged, the settings of the collection say how long an
element is. Without the pickle the order tells: labels are given in the order in which records are
added, which is that of the database's rows. Whatever is read is compared with what the log still
knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from recovery.components.chromadb.index_files import (
    CHUNK_BYTES,
    KNOWN_VERSION,
    UNIT_TOLERANCE,
    Broken,
    Header,
    UnknownFormat,
    check_header,
    element,
    read_header,
    read_labels,
)
from recovery.components.chromadb.rebuilding import late
from recovery.components.chromadb.rebuilding.stock import Operation, Stock

DEFAULT_NEIGHBOURS = 16
SAME = 1e-3
"""How far a vector may lie from the one that the log names, of its length."""

Matrix = np.ndarray[Any, np.dtype[np.float32]]
Rows = np.ndarray[Any, np.dtype[Any]]


@dataclass(slots=True, kw_only=True)
class Salvage:
    """What can be read: ``rows`` maps records to places in the file. ``lengths_lost`` counts
    vectors of which only the direction is known; ``why`` says what was wrong with the files."""

    rows: dict[str, int] = field(default_factory=dict)
    lengths_lost: int = 0
    by_order: bool = False
    why: list[str] = field(default_factory=list)
    file: Path | None = None
    header: Header | None = None
    lengths: Matrix | None = None

    def vectors(self, chosen: set[str], page: int) -> Iterator[tuple[list[str], Matrix]]:
        """The vectors of some of the records, at most ``page`` at a time."""
        if self.file is None or self.header is None:
            return
        names = {row: identity for identity, row in self.rows.items() if identity in chosen}
        kind = element(self.header)
        rows = np.fromiter(sorted(names), dtype=np.int64, count=len(names))
        with self.file.open("rb") as source:
            for start in range(0, len(rows), page):
                part = rows[start : start + page]
                yield [names[int(row)] for row in part], self._read(source, kind, part)

    def _read(self, source: Any, kind: np.dtype[Any], part: Rows) -> Matrix:
        """In one piece from the first row to the last, unless there are wide gaps between them."""
        first, last = int(part[0]), int(part[-1])
        if last - first < 4 * len(part):
            source.seek(first * kind.itemsize)
            found = np.fromfile(source, kind, last - first + 1)["vector"][part - first]
        else:
            found = np.concatenate([self._one(source, kind, int(row)) for row in part])
        vectors: Matrix = found.astype(np.float32)
        if self.lengths is not None:
            vectors *= self.lengths[part][:, None]
        return vectors

    @staticmethod
    def _one(source: Any, kind: np.dtype[Any], row: int) -> Matrix:
        source.seek(row * kind.itemsize)
        one: Matrix = np.fromfile(source, kind, 1)["vector"]
        return one


def salvage(root: Path, stock: Stock) -> Salvage:
    """Look through the files; what cannot be read is missing in ``rows``."""
    found = Salvage()
    if stock.segment is None:
        found.why.append("its folder is not known")
        return found
    folder = root / stock.segment
    file = folder / "data_level0.bin"
    if not file.is_file():
        found.why.append("data_level0.bin is not there")
        return found
    try:
        header = _layout(folder, stock, file, found)
        labels, is_good = _scan(file, header, stock.space)
        if len(labels) < header.elements:
            found.why.append(f"data_level0.bin ends after {len(labels)} of {header.elements}")
        found.rows = _name(folder, stock, labels, is_good, found)
        found.file, found.header = file, header
        if stock.space == "cosine":
            found.lengths = _lengths(folder, len(labels), found)
        _compare_with_log(stock, found)
    except Broken as broken:
        found.why.append(str(broken))
        found.rows = {}
    return found


def _layout(folder: Path, stock: Stock, file: Path, found: Salvage) -> Header:
    try:
        header = read_header(folder)
        check_header(header, stock.dimension)
    except (Broken, UnknownFormat) as error:
        found.why.append(str(error))
        return _expected(stock, file)
    return header


def _expected(stock: Stock, file: Path) -> Header:
    """The layout by the collection's settings. Raises ``Broken`` where those do not say it."""
    if stock.dimension is None:
        raise Broken("nothing says how long a vector is")
    neighbours = int(stock.settings.get("max_neighbors", DEFAULT_NEIGHBOURS))
    vector_at = 4 * 2 * neighbours + 4
    label_at = vector_at + 4 * stock.dimension
    elements = file.stat().st_size // (label_at + 8)
    return Header(
        version=KNOWN_VERSION,
        capacity=elements,
        elements=elements,
        size=label_at + 8,
        label_at=label_at,
        vector_at=vector_at,
        top_level=0,
        entry=0,
        upper_links=neighbours,
        base_links=2 * neighbours,
    )


def _scan(file: Path, header: Header, space: str) -> tuple[Rows, Rows]:
    """Of every element its label, and whether it is alive and its vector can be believed."""
    kind = element(header)
    elements = min(header.elements, file.stat().st_size // header.size)
    per_chunk = max(CHUNK_BYTES // header.size, 1)
    labels = np.zeros(elements, dtype=np.uint64)
    is_good = np.zeros(elements, dtype=bool)
    with file.open("rb") as source:
        for start in range(0, elements, per_chunk):
            chunk = np.fromfile(source, kind, min(per_chunk, elements - start))
            labels[start : start + len(chunk)] = chunk["label"]
            is_good[start : start + len(chunk)] = _believable(chunk, header, space)
    return labels, is_good


def _believable(chunk: Any, header: Header, space: str) -> Rows:
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(chunk["vector"].astype(np.float64), axis=1)
        good: Rows = np.isfinite(norms) & (chunk["marks"] == 0)
        good &= chunk["links"] <= header.base_links
        if space == "cosine":
            good &= (np.abs(norms - 1) <= UNIT_TOLERANCE) | (norms == 0)
    return good


def _name(
    folder: Path, stock: Stock, labels: Rows, is_good: Rows, found: Salvage
) -> dict[str, int]:
    try:
        known = read_labels(folder)
    except Broken as broken:
        found.why.append(str(broken))
        found.by_order = True
        return _by_order(stock, labels, is_good)
    places = {int(labels[row]): int(row) for row in np.flatnonzero(is_good)}
    named = {name: places[label] for name, label in known.items() if label in places}
    if len(named) < min(len(known), len(labels)):
        found.why.append(f"of {len(known)} vectors {len(named)} are what they were")
    return named


def _by_order(stock: Stock, labels: Rows, is_good: Rows) -> dict[str, int]:
    """Raises ``Broken`` where the order does not tell without doubt."""
    rows = np.flatnonzero(is_good)
    alive = labels[rows]
    pending = late.unsaved(stock)
    if len(np.unique(alive)) != len(alive) or (len(alive) and alive.max() > np.iinfo("u4").max):
        raise Broken("labels of data_level0.bin are no labels")
    if any(entry.operation is Operation.DELETE for entry in pending):
        raise Broken("records were deleted since the index was saved: their order tells nothing")
    names, newer = stock.ids[: len(alive)], stock.ids[len(alive) :]
    if len(names) < len(alive) or not set(newer) <= {entry.id for entry in pending}:
        raise Broken(f"data_level0.bin holds {len(alive)} vectors, and the database other records")
    ordered = rows[np.argsort(alive, kind="stable")]
    return {name: int(row) for name, row in zip(names, ordered, strict=True)}


def _lengths(folder: Path, elements: int, found: Salvage) -> Matrix:
    """Cosine keeps directions; the lengths that the vectors had stand in a file of their own."""
    lengths = np.ones(elements, dtype=np.float32)
    try:
        stored = np.fromfile(folder / "length.bin", dtype="<f4", count=elements)
    except FileNotFoundError:
        stored = np.empty(0, dtype=np.float32)
    with np.errstate(invalid="ignore"):
        is_good = np.isfinite(stored) & (stored > 0) & (stored < _LONGEST)
    lengths[: len(stored)][is_good] = stored[is_good]
    # A file of noise has plausible lengths by chance: then none of it is believed.
    lost = elements - int(is_good.sum())
    if lost > elements * _MAY_BE_ZERO:
        lengths[:] = 1
        found.lengths_lost = elements
        found.why.append("length.bin cannot be read: directions are kept, lengths are not")
    return lengths


_LONGEST = 1e12
_MAY_BE_ZERO = 0.25
"""A vector of length zero is one without a direction; an index has few of those."""


def _compare_with_log(stock: Stock, found: Salvage) -> None:
    """Raises ``Broken`` where files and log disagree on a vector that both have."""
    overlap = late.known(stock)
    chosen = {identity for identity in overlap if identity in found.rows}
    for names, vectors in found.vectors(chosen, page=1_000):
        said: Matrix = np.stack([np.frombuffer(overlap[name], dtype="<f4") for name in names])
        stored = vectors
        if stock.space == "cosine":
            said, stored = _directions(said), _directions(vectors)
        gap = np.linalg.norm(stored - said, axis=1)
        if (gap > SAME * np.maximum(np.linalg.norm(said, axis=1), SAME)).any():
            raise Broken("the vectors on disk are not those of the log")


def _directions(vectors: Matrix) -> Matrix:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Matrix = (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
    return found

"""Whether the files of one vector index hold together, without loading the index.

A damaged index may kill the process that loads it, so its bytes are judged first: sizes, counts,
links and labels. What the format cannot tell, wrong but plausible vectors, only a query can.
"""

from __future__ import annotations

import io
import pickle
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recovery.components.chromadb.database import Segment
from recovery.components.chromadb.findings import Budget, Finding
from recovery.components.chromadb.view import PICKLE

KNOWN_VERSION = 1
LAST_PLAUSIBLE_VERSION = 99

MOST_ELEMENTS = 1_000_000
"""Past this many vectors the upper links and the map of ids are judged by their size alone."""
MOST_BYTES = 256 * 1024 * 1024
"""How much of the vectors' file is read; of a larger one, parts spread over all of it."""
CHUNK_BYTES = 8 * 1024 * 1024

_HEADER = struct.Struct("<iQQQQQQiIQQQdQ")
_NO_ENTRY = 0xFFFFFFFF
UNIT_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The first file of an index. ``size`` and the places are bytes within one element."""

    version: int
    capacity: int
    elements: int
    size: int
    label_at: int
    vector_at: int
    top_level: int
    entry: int
    upper_links: int
    base_links: int

    @property
    def dimension(self) -> int:
        return (self.label_at - self.vector_at) // 4


class Broken(Exception):
    """The files contradict each other; the text says where."""


class UnknownFormat(Exception):
    """A version of the format that this release cannot judge."""


def examine(root: Path, segment: Segment, budget: Budget) -> Finding | None:
    """Judge the index of one collection. Raises ``UnknownFormat``."""
    folder = root / segment.id
    if not (folder / PICKLE).exists():
        # Without a map of ids Chroma begins anew from the log, which before the first save, or
        # where it is never purged, holds every record.
        if segment.logged >= segment.records:
            return None
        gone = PICKLE if folder.is_dir() else "the index's folder"
        return _incomplete(segment, segment.logged, f"{gone} is gone")
    try:
        header = read_header(folder)
        check_header(header, segment.dimension)
        labels = _check_elements(folder, header, segment, budget)
        _check_lengths(folder, header, segment)
        _check_links(folder, header)
        known = _check_ids(folder, header, labels)
    except Broken as broken:
        return Finding(failure_type="index_corrupted", summary=f"{segment.collection}: {broken}")
    if known is not None and segment.records > known + segment.queued:
        return _incomplete(segment, known + segment.queued, "the index lost records")
    return None


def read_header(folder: Path) -> Header:
    """Raises ``Broken`` and ``UnknownFormat``."""
    content = _read(folder / "header.bin")
    if len(content) < _HEADER.size:
        raise Broken(f"header.bin has {len(content)} of {_HEADER.size} bytes")
    fields = _HEADER.unpack_from(content)
    version, _, capacity, elements, size, label_at, vector_at, top, entry, upper, base = fields[:11]
    if version != KNOWN_VERSION:
        if 0 < version <= LAST_PLAUSIBLE_VERSION:
            raise UnknownFormat(f"version {version}")
        raise Broken(f"header.bin says version {version}")
    return Header(
        version=version,
        capacity=capacity,
        elements=elements,
        size=size,
        label_at=label_at,
        vector_at=vector_at,
        top_level=top,
        entry=entry,
        upper_links=upper,
        base_links=base,
    )


def check_header(header: Header, dimension: int | None) -> None:
    """Raises ``Broken``."""
    fits = (
        header.vector_at == 4 * header.base_links + 4
        and header.size == header.label_at + 8
        and header.label_at == header.vector_at + 4 * header.dimension
        and header.dimension > 0
        and header.elements <= header.capacity
        and (header.entry < header.elements or header.entry == _NO_ENTRY)
    )
    if not fits:
        raise Broken("header.bin contradicts itself")
    if dimension is not None and header.dimension != dimension:
        raise Broken(f"the index has {header.dimension} dimensions instead of {dimension}")


def _check_elements(
    folder: Path, header: Header, segment: Segment, budget: Budget
) -> np.ndarray[Any, np.dtype[np.uint64]] | None:
    """Links, marks and vectors; the labels in use where the whole file was read, else None."""
    file = folder / "data_level0.bin"
    _has_size(file, header.elements * header.size)
    if not header.elements:
        return np.empty(0, dtype=np.uint64)
    kind = element(header)
    rows = max(CHUNK_BYTES // header.size, 1)
    starts = list(range(0, header.elements, rows))
    step = max(len(starts) * CHUNK_BYTES // MOST_BYTES, 1)
    labels = []
    with file.open("rb") as source:
        for number, start in enumerate(starts[::step]):
            if number and budget.is_over:
                return None
            source.seek(start * header.size)
            chunk = np.fromfile(source, kind, min(rows, header.elements - start))
            labels.append(_check_chunk(chunk, header, segment.space))
    return np.concatenate(labels) if step == 1 else None


def _check_chunk(chunk: Any, header: Header, space: str | None) -> Any:
    if (chunk["links"] > header.base_links).any() or (chunk["marks"] > 1).any():
        raise Broken("data_level0.bin has elements with impossible links")
    used = np.arange(header.base_links) < chunk["links"][:, None]
    if (chunk["neighbours"][used] >= header.elements).any():
        raise Broken("data_level0.bin has links that lead nowhere")
    alive = chunk["marks"] == 0
    norms = np.linalg.norm(chunk["vector"][alive].astype(np.float64), axis=1)
    if not np.isfinite(norms).all():
        raise Broken("data_level0.bin has vectors that are no numbers")
    if space == "cosine" and ((np.abs(norms - 1) > UNIT_TOLERANCE) & (norms > 0)).any():
        raise Broken("data_level0.bin has vectors that are not normalised")
    return chunk["label"][alive].copy()


def element(header: Header) -> np.dtype[Any]:
    """One vector with its links and its label, as ``data_level0.bin`` holds it."""
    return np.dtype(
        {
            "names": ["links", "marks", "neighbours", "vector", "label"],
            "formats": [
                "<u2",
                "<u2",
                ("<u4", (header.base_links,)),
                ("<f4", (header.dimension,)),
                "<u8",
            ],
            "offsets": [0, 2, 4, header.vector_at, header.label_at],
            "itemsize": header.size,
        }
    )


def _check_lengths(folder: Path, header: Header, segment: Segment) -> None:
    file = folder / "length.bin"
    _has_size(file, header.elements * 4)
    # Only cosine writes lengths; for other spaces the file holds what memory held by chance.
    if segment.space != "cosine" or header.elements > MOST_ELEMENTS:
        return
    lengths = np.fromfile(file, dtype="<f4", count=header.elements)
    if not (np.isfinite(lengths) & (lengths >= 0)).all():
        raise Broken("length.bin has lengths that are no lengths")


def _check_links(folder: Path, header: Header) -> None:
    """One list a vector, nearly all of them empty."""
    file = folder / "link_lists.bin"
    _has_size(file, header.elements * 4)
    if header.elements > MOST_ELEMENTS:
        return
    content = _read(file)
    level = 4 * header.upper_links + 4
    at = 0
    for _ in range(header.elements):
        if at + 4 > len(content):
            raise Broken("link_lists.bin ends too early")
        (size,) = struct.unpack_from("<I", content, at)
        at += 4
        if size == 0:
            continue
        if size % level or at + size > len(content):
            raise Broken("link_lists.bin has lists of an impossible length")
        _check_upper(content[at : at + size], level, header)
        at += size


def _check_upper(lists: bytes, level: int, header: Header) -> None:
    for at in range(0, len(lists), level):
        (count,) = struct.unpack_from("<H", lists, at)
        if count > header.upper_links:
            raise Broken("link_lists.bin has elements with impossible links")
        targets = struct.unpack_from(f"<{count}I", lists, at + 4)
        if count and max(targets) >= header.elements:
            raise Broken("link_lists.bin has links that lead nowhere")


def _check_ids(
    folder: Path, header: Header, labels: np.ndarray[Any, np.dtype[np.uint64]] | None
) -> int | None:
    """How many records the index knows; None where it is too large to be read."""
    if header.elements > MOST_ELEMENTS:
        return None
    names = read_labels(folder)
    if len(names) > header.elements:
        raise Broken(f"{PICKLE} names {len(names)} of {header.elements} vectors")
    known = np.fromiter(names.values(), dtype=np.uint64, count=len(names))
    if labels is not None and not np.isin(known, labels).all():
        raise Broken(f"{PICKLE} names vectors that are not there")
    return len(names)


def read_labels(folder: Path) -> dict[str, int]:
    """The record ids with their labels in the index, running nothing; raises ``Broken``."""
    try:
        content = _Inert(io.BytesIO(_read(folder / PICKLE))).load()
        fields = content if isinstance(content, dict) else vars(content)
        labels: dict[str, Any] = fields["id_to_label"]
        if not all(isinstance(label, int) and label >= 0 for label in labels.values()):
            raise Broken(f"{PICKLE} holds no labels")
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        TypeError,
        ValueError,
    ) as error:
        raise Broken(f"{PICKLE} cannot be read: {type(error).__name__}") from error
    return labels


class _PersistentData:
    """Stands for the class of that name, which versions before 1.0 wrote."""


class _Inert(pickle.Unpickler):
    """Builds plain data only: a name that a pickle asks for could be any function."""

    def find_class(self, module: str, name: str) -> Any:
        if name == _PersistentData.__name__.lstrip("_") and module.startswith("chromadb."):
            return _PersistentData
        raise pickle.UnpicklingError(f"{module}.{name} is not data")


def _has_size(file: Path, needed: int) -> None:
    try:
        size = file.stat().st_size
    except FileNotFoundError as error:
        raise Broken(f"{file.name} is not there") from error
    if size < needed:
        raise Broken(f"{file.name} has {size} of {needed} bytes")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise Broken(f"{file.name} is not there") from error


def _incomplete(segment: Segment, searched: int, why: str) -> Finding:
    return Finding(
        failure_type="index_incomplete",
        summary=f"{segment.collection}: {why}; queries see {searched} of {segment.records} records",
    )

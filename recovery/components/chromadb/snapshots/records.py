"""How the records of a collection lie in an export: one JSON object a line, whatever their order.

A vector is its 32-bit floats, little-endian, in base64: read back it has the bits that it had.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

Records = dict[str, list[Any]]
"""Columns of equal length, as the server's API has them."""

_FIELDS = {"documents": "document", "metadatas": "metadata", "uris": "uri"}


class NoVector(Exception):
    """A record whose vector is not there, or holds no numbers."""


def lines(page: Records) -> Iterator[bytes]:
    """Raises ``NoVector``."""
    for number, (identity, vector) in enumerate(zip(page["ids"], page["embeddings"], strict=True)):
        told = {field: page[column][number] for column, field in _FIELDS.items()}
        said = {field: value for field, value in told.items() if value is not None}
        record = {"id": identity, "vector": _packed(identity, vector), **said}
        yield json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def pages(file: Path, size: int) -> Iterator[Records]:
    """Raises ``ValueError`` where a line is no record."""
    with file.open("rb") as source:
        while part := list(islice(source, size)):
            yield _columns(map(json.loads, part))


def _columns(records: Iterable[dict[str, Any]]) -> Records:
    known = list(records)
    return {
        "ids": [record["id"] for record in known],
        "embeddings": [_unpacked(record["vector"]) for record in known],
        **{column: [one.get(field) for one in known] for column, field in _FIELDS.items()},
    }


def _packed(identity: str, vector: list[float] | None) -> str:
    try:
        packed = struct.pack(f"<{len(vector or ())}f", *(vector or ()))
    except (struct.error, OverflowError) as error:
        raise NoVector(f"the vector of {identity[:80]!r} holds no numbers") from error
    if not packed:
        raise NoVector(f"{identity[:80]!r} has no vector")
    return base64.b64encode(packed).decode()


def _unpacked(text: str) -> list[float]:
    try:
        packed = base64.b64decode(text, validate=True)
        return list(struct.unpack(f"<{len(packed) // 4}f", packed))
    except (binascii.Error, struct.error) as error:
        raise ValueError("a vector is not as it was written") from error

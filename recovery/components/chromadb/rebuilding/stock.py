"""What the database says that one collection holds, and what its log says of the latest changes.

Only reads. Everything comes from one read transaction, so that it fits together whoever writes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from recovery.components.chromadb.database import NAME

PAGE = 1_000
DOCUMENT = "chroma:document"
SPACES = ("cosine", "ip", "l2")
_SETTINGS = ("ef_construction", "max_neighbors", "ef_search", "resize_factor", "num_threads")
_LEGACY = {
    "hnsw:space": "space",
    "hnsw:construction_ef": "ef_construction",
    "hnsw:search_ef": "ef_search",
    "hnsw:M": "max_neighbors",
    "hnsw:resize_factor": "resize_factor",
    "hnsw:num_threads": "num_threads",
}
# A topic of the log ends with the collection's id, which has 36 characters.
_TOPIC = "substr(topic, -36) = ?"


class Operation(IntEnum):
    """What an entry of the log does to a record."""

    ADD = 0
    UPDATE = 1
    UPSERT = 2
    DELETE = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log; ``vector`` is four bytes a dimension, or None where it names none."""

    position: int
    operation: Operation
    id: str
    vector: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """One collection. ``saved`` and ``end`` are positions in the log: what the index on disk holds,
    and the newest entry. ``ids`` are those of its records, in the order in which they were added.

    ``log`` is everything that the log still has of it, and ``described`` the position up to which
    ``ids`` are right.
    """

    collection: str
    name: str
    segment: str | None
    metadata_segment: str
    dimension: int | None
    space: str
    settings: dict[str, Any]
    embedding_function: dict[str, Any] = field(default_factory=dict)
    saved: int
    described: int
    end: int
    ids: list[str]
    log: list[Entry]


@contextmanager
def reading(folder: Path, patience: float) -> Iterator[sqlite3.Connection]:
    """One read transaction; rolls back what a crash left, as any opener does.

    Raises ``sqlite3.Error``: after ``patience`` seconds where the database is locked.
    """
    address = f"{(folder / NAME).as_uri()}?mode=rw"
    with closing(
        sqlite3.connect(address, uri=True, isolation_level=None, timeout=patience)
    ) as connection:
        connection.execute("BEGIN")
        yield connection


def read(connection: sqlite3.Connection, collection: str, segment: str | None = None) -> Stock:
    """``segment``: its index, for where the database lost the line that says so.

    Raises ``LookupError`` where there is no such collection, or no records of it.
    """
    name, dimension, schema, config = _row(connection, collection)
    segments = dict(
        connection.execute("SELECT scope, id FROM segments WHERE collection = ?", (collection,))
    )
    segment = segments.get("VECTOR", segment)
    index = _index(schema, config, _legacy(connection, collection, segment))
    log = list(_log(connection, collection))
    saved = position(connection, segment)
    described = position(connection, segments["METADATA"])
    return Stock(
        collection=collection,
        name=name,
        segment=segment,
        metadata_segment=segments["METADATA"],
        dimension=dimension,
        space=index["space"] if index.get("space") in SPACES else "l2",
        settings={key: index[key] for key in _SETTINGS if index.get(key) is not None},
        embedding_function=index.get("embedding_function") or {},
        saved=saved,
        described=described,
        end=max([saved, *(entry.position for entry in log)]),
        ids=[
            identity
            for (identity,) in connection.execute(
                "SELECT embedding_id FROM embeddings WHERE segment_id = ? ORDER BY id",
                (segments["METADATA"],),
            )
        ],
        log=log,
    )


def position(connection: sqlite3.Connection, segment: str | None) -> int:
    """Up to where a segment holds the log; 0 where it was never saved."""
    found = connection.execute(
        "SELECT seq_id FROM max_seq_id WHERE segment_id = ?", (segment,)
    ).fetchone()
    stored = found[0] if found else 0
    # Older versions stored positions as big-endian bytes.
    return int.from_bytes(stored, "big") if isinstance(stored, bytes) else int(stored or 0)


def log_end(connection: sqlite3.Connection, collection: str) -> int:
    (newest,) = connection.execute(
        f"SELECT max(seq_id) FROM embeddings_queue WHERE {_TOPIC}",  # noqa: S608 - a constant
        (collection,),
    ).fetchone()
    return int(newest or 0)


def documents(
    connection: sqlite3.Connection, metadata_segment: str, wanted: set[str]
) -> Iterator[tuple[str, str | None]]:
    """The documents of some of the records, in the order in which those were added."""
    found = connection.execute(
        "SELECT e.embedding_id, m.string_value FROM embeddings e LEFT JOIN embedding_metadata m"
        " ON m.id = e.id AND m.key = ? WHERE e.segment_id = ? ORDER BY e.id",
        (DOCUMENT, metadata_segment),
    )
    yield from ((identity, text) for identity, text in found if identity in wanted)


def _row(connection: sqlite3.Connection, collection: str) -> tuple[str, int | None, Any, Any]:
    columns = {row[1] for row in connection.execute("PRAGMA table_info(collections)")}
    schema = "schema_str" if "schema_str" in columns else "NULL"
    found = connection.execute(
        f"SELECT name, dimension, {schema}, config_json_str FROM collections WHERE id = ?",  # noqa: S608 - one of two constants
        (collection,),
    ).fetchone()
    if found is None:
        raise LookupError(collection)
    return (found[0], found[1], found[2], found[3])


def _legacy(connection: sqlite3.Connection, collection: str, segment: str | None) -> dict[str, Any]:
    """What versions before 1.0 kept among the metadata."""
    found: dict[str, Any] = {}
    for table, key, value in (
        ("collection_metadata", "collection_id", collection),
        ("segment_metadata", "segment_id", segment),
    ):
        rows = connection.execute(
            f"SELECT key, coalesce(str_value, int_value, float_value) FROM {table} WHERE {key} = ?",  # noqa: S608 - constants
            (value,),
        )
        found |= {_LEGACY[name]: said for name, said in rows if name in _LEGACY}
    return found


def _index(schema: str | None, config: str | None, legacy: dict[str, Any]) -> dict[str, Any]:
    """The settings of the index, whoever of three generations wrote them down.

    What cannot be read is taken as not said; the inspection has named it by then.
    """
    settings: Any = _parsed(config)
    old = {**(settings.get("hnsw") or {}), **_named(settings)}
    own = _parsed(schema).get("keys", {}).get("#embedding", {}).get("float_list", {})
    new = own.get("vector_index", {}).get("config", {})
    return {**legacy, **old, **(new.get("hnsw") or {}), **_named(new)}


def _named(settings: dict[str, Any]) -> dict[str, Any]:
    found = {key: settings.get(key) for key in ("space", "embedding_function")}
    return {key: value for key, value in found.items() if value}


def _parsed(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _log(connection: sqlite3.Connection, collection: str) -> Iterator[Entry]:
    found = connection.execute(
        f"SELECT seq_id, operation, id, vector FROM embeddings_queue WHERE {_TOPIC}"  # noqa: S608 - a constant
        " ORDER BY seq_id",
        (collection,),
    )
    known = {int(operation) for operation in Operation}
    for at, operation, identity, vector in found:
        if operation in known:
            yield Entry(int(at), Operation(operation), identity, vector)

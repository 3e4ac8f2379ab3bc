"""What ``chroma.sqlite3`` says of itself and of its collections. Reads; never locks, never writes.

The file of an application that has it open is read either from its bytes alone, or as immutable,
or as a private copy: nothing here takes a lock on it. Whoever reads a file that may change compares
``view.signature`` before and after.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recovery.components.chromadb.findings import Budget, Finding, Unreadable, without_place
from recovery.components.chromadb.orphans import is_index_name

NAME = "chroma.sqlite3"
JOURNALS = (f"{NAME}-journal", f"{NAME}-wal", f"{NAME}-shm")
TABLES = frozenset({"collections", "segments", "embeddings", "embeddings_queue", "max_seq_id"})
MOST_COLLECTIONS = 10_000
SMALLEST_PAGE = 512
STEPS = 5_000
"""How many steps of SQLite's machine lie between two looks at the clock."""

SCOPES = ("VECTOR", "METADATA")
LAST_POSITION = 2**63 - 1
ODD_JSON = (AttributeError, RecursionError, TypeError, ValueError)
"""What text that is no JSON raises, and JSON that is not what was expected."""

_COLUMNS = "PRAGMA table_info(collections)"
_MAGIC = b"SQLite format 3\0"
_PENDING_BYTE = 0x40000000
_LOCK_BYTES = 512
_FLOCK = "@hhqqi4x"


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """The vector index of one collection as the database knows it.

    ``is_own``: it belongs to the target's own tenant and database.
    ``records``: those of the collection. ``logged``: those that the write-ahead log still names.
    ``queued``: those of them that the index on disk does not hold yet.
    """

    id: str
    collection: str
    is_own: bool
    dimension: int | None
    space: str | None
    records: int
    logged: int
    queued: int


@dataclass(slots=True, kw_only=True)
class Catalogue:
    """What the database lists. ``names`` are the collections of the target's own database,
    ``folders`` the ids of all segments, which are the names that a folder of an index may have."""

    names: list[str] = field(default_factory=list)
    collections: int = 0
    segments: list[Segment] = field(default_factory=list)
    folders: frozenset[str] = frozenset()
    finding: Finding | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a glance at the database tells. ``saved``: index folder → collection; must be there.

    ``missing`` says that the target's own tenant or database is not in it.
    """

    names: list[str]
    collections: int
    saved: dict[str, str]
    missing: Finding | None = None


class OutOfTime(Exception):
    """The budget was over before SQLite was done."""


def look_at_file(folder: Path) -> Finding | None:
    """Judge the file by its header alone. Raises ``OSError`` where it may not be read."""
    if not folder.is_dir():
        return _missing(f"{folder} is not there")
    file = folder / NAME
    try:
        with file.open("rb") as source:
            header = source.read(100)
        size = file.stat().st_size
    except FileNotFoundError:
        return _missing(f"{file} is not there")
    if size == 0:
        return _missing(f"{file} is empty")
    if not header.startswith(_MAGIC):
        return _corrupted(f"{file} does not begin like a database")
    page = int.from_bytes(header[16:18], "big")
    page = 65536 if page == 1 else page
    pages = int.from_bytes(header[28:32], "big")
    if page < SMALLEST_PAGE or page & (page - 1):
        return _corrupted(f"{file} has an impossible page size of {page}")
    # The header's page count is only current where its two change counters agree.
    if header[24:28] == header[92:96] and size < pages * page:
        return _corrupted(f"{file} has {size} of its {pages * page} bytes")
    return None


def lock_holder(folder: Path) -> int | None:
    """The process that holds a write lock on the database; 0 where another namespace hides it.

    Asks the kernel without taking a lock. None: nobody.
    """
    asked = struct.pack(_FLOCK, fcntl.F_RDLCK, 0, _PENDING_BYTE, _LOCK_BYTES, 0)
    with (folder / NAME).open("rb") as file:
        answer = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
    kind, holder = answer[0], int(answer[4])
    return None if kind == fcntl.F_UNLCK else max(holder, 0)


@contextmanager
def opened(folder: Path, budget: Budget, *, immutable: bool) -> Iterator[sqlite3.Connection]:
    """A connection whose reads end when the budget is over; ``in_time`` names that.

    ``immutable`` reads a file that somebody else may write, without locks and without its journal;
    otherwise it must be a private copy, whose journal is then rolled back as on any next start.
    """
    mode = "mode=ro&immutable=1" if immutable else "mode=rw"
    address = f"{(folder / NAME).as_uri()}?{mode}"
    with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as connection:
        connection.set_progress_handler(lambda: budget.is_over, STEPS)
        yield connection


@contextmanager
def in_time() -> Iterator[None]:
    """Raises ``OutOfTime`` where the connection's budget ended a read."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            raise OutOfTime from error
        raise


def check(connection: sqlite3.Connection) -> Finding | None:
    """SQLite's own check of every page; it finds damage of the database, never of an index.

    Raises ``OutOfTime``.
    """
    with in_time():
        answer = connection.execute("PRAGMA quick_check(1)").fetchone()
    if answer is None or answer[0] == "ok":
        return None
    return _corrupted(f"quick_check: {answer[0]}")


def glance(connection: sqlite3.Connection, tenant: str, database: str) -> Listing:
    """The collections of the target's own database, and all indexes that were ever saved."""
    saved = connection.execute(
        "SELECT s.id, c.name FROM segments s JOIN max_seq_id m ON m.segment_id = s.id"
        " JOIN collections c ON s.collection = c.id WHERE s.scope = 'VECTOR' LIMIT ?",
        (MOST_COLLECTIONS,),
    ).fetchall()
    for segment, name in saved:
        _require_segment(segment, name)
    return Listing(
        names=_own(connection, tenant, database),
        collections=_count(connection),
        # A log that is never purged rebuilds an index that is gone: only a count shows a loss.
        saved=dict(saved) if _purges(connection) else {},
        missing=_without_place(connection, tenant, database),
    )


def read(connection: sqlite3.Connection, tenant: str, database: str) -> Catalogue:
    """The collections and their segments; ``finding`` names what does not fit together.

    Raises ``Unreadable``.
    """
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if not tables >= TABLES:
        return Catalogue(finding=_missing("the database has none of Chroma's tables"))
    own = _own(connection, tenant, database)
    gone = _without_place(connection, tenant, database)
    found = Catalogue(names=own, collections=_count(connection), finding=gone)
    folders: dict[tuple[str, str], str] = {
        (collection, scope): segment
        for segment, collection, scope in connection.execute(
            "SELECT id, collection, scope FROM segments"
        )
    }
    found.folders = frozenset(map(str, folders.values()))
    records = dict(connection.execute("SELECT segment_id, count(*) FROM embeddings GROUP BY 1"))
    log = _log(connection)
    for row in _collections(connection, tenant, database):
        identity, name, dimension, schema, config, is_own = row
        if not (isinstance(name, str) and isinstance(dimension, int | None)):
            raise Unreadable(f"the row of collection {identity!r} cannot be read")
        lost = [scope for scope in SCOPES if (identity, scope) not in folders]
        if lost:
            found.finding = _unreadable(f"{name} has lost its {' and '.join(lost)} segment")
            continue
        _require_segment(folders[identity, "VECTOR"], name)
        space = _space(schema, config)
        if space is None:
            found.finding = _unreadable(f"the settings of {name} cannot be read")
        logged, queued = log.get(identity, (0, 0))
        found.segments.append(
            Segment(
                id=folders[identity, "VECTOR"],
                collection=name,
                is_own=bool(is_own),
                dimension=dimension,
                space=space or None,
                records=records.get(folders[identity, "METADATA"], 0),
                logged=logged,
                queued=queued,
            )
        )
    return found


def _own(connection: sqlite3.Connection, tenant: str, database: str) -> list[str]:
    found = connection.execute(
        "SELECT c.name FROM collections c JOIN databases d ON c.database_id = d.id"
        " WHERE d.name = ? AND d.tenant_id = ?",
        (database, tenant),
    )
    names = [name for (name,) in found]
    if not all(isinstance(name, str) for name in names):
        raise Unreadable("the name of a collection is no text")
    return names


def _without_place(connection: sqlite3.Connection, tenant: str, database: str) -> Finding | None:
    row = connection.execute(
        "SELECT 1 FROM databases WHERE name = ? AND tenant_id = ?", (database, tenant)
    ).fetchone()
    return None if row else without_place(tenant, database)


def _require_segment(segment: object, collection: object) -> None:
    """The id of a segment is the name of its folder, which must not lead elsewhere."""
    if not (isinstance(segment, str) and is_index_name(segment) and isinstance(collection, str)):
        raise Unreadable(f"the segment of {collection!r} has an impossible id")


def _count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM collections").fetchone()[0])


def _collections(connection: sqlite3.Connection, tenant: str, database: str) -> Iterator[Any]:
    has_schema = any(row[1] == "schema_str" for row in connection.execute(_COLUMNS))
    yield from connection.execute(
        f"SELECT c.id, c.name, c.dimension, {'c.schema_str' if has_schema else 'NULL'},"  # noqa: S608 - one of two constants
        " c.config_json_str, d.name = ? AND d.tenant_id = ?"
        " FROM collections c LEFT JOIN databases d ON c.database_id = d.id LIMIT ?",
        (database, tenant, MOST_COLLECTIONS),
    )


def _log(connection: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    """Of each collection the records that the log names, and those its index does not hold yet."""
    connection.create_function("position", 1, _position, deterministic=True)
    # A topic ends with the collection's id, which has 36 characters.
    found = connection.execute(
        "WITH synced AS MATERIALIZED (SELECT s.collection AS id, position(m.seq_id) AS at"
        " FROM segments s JOIN max_seq_id m ON m.segment_id = s.id WHERE s.scope = 'VECTOR')"
        " SELECT substr(q.topic, -36) AS collection, count(DISTINCT q.id),"
        " count(DISTINCT CASE WHEN q.seq_id > coalesce(synced.at, 0) THEN q.id END)"
        " FROM embeddings_queue q LEFT JOIN synced ON synced.id = substr(q.topic, -36) GROUP BY 1"
    )
    return {collection: (logged, queued) for collection, logged, queued in found}


def _purges(connection: sqlite3.Connection) -> bool:
    """Whether the log is emptied of what the indexes hold, which is Chroma's default."""
    try:
        row = connection.execute("SELECT config_json_str FROM embeddings_queue_config").fetchone()
        return row is None or bool(json.loads(row[0]).get("automatically_purge", True))
    except (sqlite3.OperationalError, *ODD_JSON):
        return True


def _space(schema: str | None, config: str | None) -> str | None:
    """The distance function; "" where nothing says it, None where what says it cannot be read."""
    try:
        settings: Any = json.loads(schema) if schema else {}
        own = settings.get("keys", {}).get("#embedding", {})
        index = own.get("float_list", {}).get("vector_index", {}).get("config", {})
        legacy: Any = json.loads(config) if config else {}
        return str(index.get("space") or (legacy.get("hnsw") or {}).get("space") or "")
    except ODD_JSON:
        return None


def _position(stored: object) -> int:
    """Older versions stored positions of the log as big-endian bytes."""
    if isinstance(stored, bytes):
        return min(int.from_bytes(stored, "big"), LAST_POSITION)
    return stored if isinstance(stored, int) else 0


def _missing(summary: str) -> Finding:
    return Finding(failure_type="database_missing", summary=summary)


def _corrupted(summary: str) -> Finding:
    return Finding(failure_type="data_corruption", summary=summary)


def _unreadable(summary: str) -> Finding:
    return Finding(failure_type="corrupted_metadata", summary=summary)

"""Putting a new index in the place of an old one: one transaction of the target's database.

An index is a folder named after a segment, and the database says which segment is a collection's.
So the new folder comes to lie beside the old one, and the transaction changes what the database
says: before it everything is as it was, after it everything is new, and nothing is in between.
Chroma looks the segment up at each request, so that servers and applications go over by themselves,
and replay from the log what came after it. The collection keeps its id, its name and its records.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from recovery.components.chromadb.database import NAME
from recovery.components.chromadb.rebuilding.stock import log_end, position
from recovery.errors import NotKept, RemedyError, TargetRefused, TargetUnreachable, WouldOverwrite

TYPE = "urn:chroma:segment/vector/hnsw-local-persisted"
LOG = "log.sqlite3"
"""In the kept folder: what the log had of a collection beyond its old index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """``old`` goes and ``new`` comes, for one collection.

    ``saved`` and ``end`` are positions in the log: what ``old`` holds and what ``new`` holds.
    ``is_listed``: whether the database knew ``old`` as the collection's.
    """

    collection: str
    name: str
    old: str | None
    new: str
    saved: int
    end: int
    records: int
    is_listed: bool = True

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        return cls(**plain)


class Overtaken(Exception):
    """Somebody saved the index meanwhile: what was built is older than what is there."""


def place(index: Path | None, path: Path, exchange: Exchange) -> None:
    """Bring the built folder to its place, wholly on the disk; the database's owner owns it.

    Raises ``OSError``.
    """
    if index is None:
        return
    owner = (path / NAME).stat()
    for file in index.iterdir():
        _hand_over(file, owner)
    _hand_over(index, owner)
    index.rename(path / exchange.new)
    _sync(path)


def perform(connection: sqlite3.Connection, exchange: Exchange, kept: Path) -> int:
    """Exchange them, when the transaction ends well; the newest position of the log by now.

    Raises ``Overtaken`` where the old index was saved meanwhile, ``RemedyError`` where the
    collection is gone or has another index.
    """
    current = current_index(connection, exchange.collection)
    if current != (exchange.old if exchange.is_listed else None):
        raise RemedyError(f"{exchange.name} has another index by now")
    if not _exists(connection, exchange.collection):
        raise RemedyError(f"{exchange.name} was deleted meanwhile")
    if position(connection, exchange.old) > exchange.end:
        raise Overtaken(exchange.name)
    _keep_log(connection, exchange, kept)
    _rename(connection, exchange)
    return log_end(connection, exchange.collection)


def revert(path: Path, exchange: Exchange, patience: float, kept: Path, *, overwrite: bool) -> None:
    """Give the collection its old index back, and the log what that one does not hold.

    Raises ``WouldOverwrite`` where records came after the exchange that the log does not have any
    more, ``NotKept`` where the old index is gone.
    """
    if exchange.old is not None and exchange.saved and not (path / exchange.old).is_dir():
        raise NotKept(f"the old index of {exchange.name} is gone from {path}")
    with writing(path, patience) as connection:
        current = current_index(connection, exchange.collection)
        if current == (exchange.old if exchange.is_listed else None):
            return
        if current != exchange.new:
            raise WouldOverwrite(f"{exchange.name} has another index by now")
        newer = position(connection, exchange.new) - exchange.end
        if newer > 0 and not overwrite:
            raise WouldOverwrite(
                f"{exchange.name} was written since: {newer} changes are only in its new index;"
                " with overwrite they are kept with it, aside"
            )
        _restore_log(connection, exchange, kept)
        if exchange.is_listed and exchange.old is not None:
            connection.execute(
                "UPDATE segments SET id = ? WHERE id = ?", (exchange.old, exchange.new)
            )
            _name_metadata(connection, exchange.new, exchange.old)
        else:
            connection.execute("DELETE FROM segments WHERE id = ?", (exchange.new,))
        _set_position(connection, exchange.old, exchange.saved)


def current_index(connection: sqlite3.Connection, collection: str) -> str | None:
    found = connection.execute(
        "SELECT id FROM segments WHERE collection = ? AND scope = 'VECTOR'", (collection,)
    ).fetchone()
    return str(found[0]) if found else None


def is_in_place(path: Path, exchange: Exchange, patience: float) -> bool:
    with writing(path, patience) as connection:
        return current_index(connection, exchange.collection) == exchange.new


def remove_unused(path: Path, segments: Iterator[str | None], patience: float) -> int:
    """Remove index folders that no collection has any more; how many. Raises ``RemedyError``."""
    removed = 0
    with writing(path, patience) as connection:
        used = {name for (name,) in connection.execute("SELECT id FROM segments")}
        for segment in segments:
            if segment is None or segment in used or not _is_segment(segment):
                continue
            connection.execute("DELETE FROM max_seq_id WHERE segment_id = ?", (segment,))
            if (path / segment).is_dir():
                shutil.rmtree(path / segment)
                removed += 1
    return removed


def _is_segment(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False


@contextmanager
def writing(path: Path, patience: float) -> Iterator[sqlite3.Connection]:
    """A transaction that no other writer comes into; undone where anything is raised.

    Raises ``TargetUnreachable`` where the database stays locked for ``patience`` seconds.
    """
    address = f"{(path / NAME).as_uri()}?mode=rw"
    try:
        with closing(
            sqlite3.connect(address, uri=True, isolation_level=None, timeout=patience)
        ) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        raise _named(error, path, patience) from error
    except sqlite3.DatabaseError as error:
        raise RemedyError(f"{path / NAME}: {error}") from error


def _named(error: sqlite3.OperationalError, path: Path, patience: float) -> RemedyError:
    text = str(error)
    if "locked" in text or "busy" in text:
        return TargetUnreachable(f"{path / NAME} has been locked for {patience:.1f} s")
    if "readonly" in text or "unable to open" in text:
        return TargetRefused(f"{path / NAME} may not be written: {text}")
    return RemedyError(f"{path / NAME}: {text}")


def _exists(connection: sqlite3.Connection, collection: str) -> bool:
    found = connection.execute("SELECT 1 FROM collections WHERE id = ?", (collection,)).fetchone()
    return found is not None


def _rename(connection: sqlite3.Connection, exchange: Exchange) -> None:
    if exchange.is_listed:
        connection.execute("UPDATE segments SET id = ? WHERE id = ?", (exchange.new, exchange.old))
        _name_metadata(connection, exchange.old, exchange.new)
    else:
        connection.execute(
            "INSERT INTO segments (id, type, scope, collection) VALUES (?, ?, 'VECTOR', ?)",
            (exchange.new, TYPE, exchange.collection),
        )
    _set_position(connection, exchange.new, exchange.end)


def _name_metadata(connection: sqlite3.Connection, old: str | None, new: str) -> None:
    connection.execute(
        "UPDATE segment_metadata SET segment_id = ? WHERE segment_id = ?", (new, old)
    )


def _set_position(connection: sqlite3.Connection, segment: str | None, at: int) -> None:
    """The old segment's own line stays: it says what an index put aside holds."""
    if segment is not None and at:
        connection.execute(
            "INSERT OR REPLACE INTO max_seq_id (segment_id, seq_id) VALUES (?, ?)", (segment, at)
        )


_COLUMNS = "seq_id, created_at, operation, topic, id, vector, encoding, metadata"


def _keep_log(connection: sqlite3.Connection, exchange: Exchange, kept: Path) -> None:
    """Chroma forgets what its index holds: what only the new one does must outlast that."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM embeddings_queue"  # noqa: S608 - constants
        " WHERE substr(topic, -36) = ? AND seq_id > ? AND seq_id <= ?",
        (exchange.collection, exchange.saved, exchange.end),
    )
    with closing(sqlite3.connect(kept / LOG)) as ours, ours:
        ours.execute(f"CREATE TABLE IF NOT EXISTS log ({_COLUMNS}, PRIMARY KEY (seq_id))")
        ours.executemany(f"INSERT OR REPLACE INTO log VALUES ({'?, ' * 7}?)", rows)  # noqa: S608 - constants


def _restore_log(connection: sqlite3.Connection, exchange: Exchange, kept: Path) -> None:
    if not (kept / LOG).is_file():
        raise NotKept(f"what {exchange.name} had in its log is gone from {kept}")
    with closing(sqlite3.connect(kept / LOG)) as ours:
        rows = ours.execute(
            f"SELECT {_COLUMNS} FROM log WHERE substr(topic, -36) = ? AND seq_id > ?"  # noqa: S608 - constants
            " AND seq_id <= ?",
            (exchange.collection, exchange.saved, exchange.end),
        )
        connection.executemany(
            f"INSERT OR IGNORE INTO embeddings_queue ({_COLUMNS}) VALUES ({'?, ' * 7}?)",  # noqa: S608 - constants
            rows,
        )


def _hand_over(file: Path, owner: os.stat_result) -> None:
    if owner.st_uid != os.geteuid():
        os.chown(file, owner.st_uid, owner.st_gid)
    file.chmod(0o755 if file.is_dir() else owner.st_mode & 0o777)
    _sync(file)


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""A private copy of a Chroma directory, so that looking at it can never change it.

Chroma writes when it opens: it touches the database, and truncates and rewrites the files of every
index that was not saved yet. Beside an application that has the directory open that would be
damage, so Chroma is only ever shown a copy. What is too large to copy is judged by its files.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from recovery.components.chromadb.database import JOURNALS, NAME

PREFIX = "recovery-chromadb-"
MOST_BYTES = 256 * 1024 * 1024
MOST_FOLDERS = 2_000
LOCK_SECONDS = 1.0
"""How long a consistent copy waits for its turn at the database; Chroma itself waits longer."""
ABANDONED_SECONDS = 60.0
PICKLE = "index_metadata.pickle"
INDEX_NAMES = ("header.bin", "data_level0.bin", "length.bin", "link_lists.bin", PICKLE)

Signature = tuple[tuple[str, int, int, int], ...]
"""Path, inode, bytes and time of change of each file: equal before and after, nobody wrote."""


@contextmanager
def private_folder() -> Iterator[Path]:
    """An empty folder for one look, removed at the end; and the leftovers of killed lookers."""
    place = Path(tempfile.gettempdir())
    _sweep(place)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(held)
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(place: Path) -> None:
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):
            seen = folder.lstat()
            if seen.st_uid != os.geteuid() or time.time() - seen.st_mtime < ABANDONED_SECONDS:
                continue
            held = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(held)


def signature(folder: Path) -> Signature:
    """Of the database, its journals, and the files of the indexes."""
    found: list[tuple[str, int, int, int]] = []
    places = [folder]
    for place in places:
        with suppress(OSError), os.scandir(place) as entries:
            for entry in entries:
                seen = entry.stat(follow_symlinks=False)
                if entry.is_file(follow_symlinks=False):
                    found.append((entry.path, seen.st_ino, seen.st_size, seen.st_mtime_ns))
                elif place is folder and len(places) <= MOST_FOLDERS:
                    places.append(Path(entry.path))
    return tuple(sorted(found))


def database_bytes(folder: Path) -> int:
    return sum(_size(folder / name) for name in (NAME, *JOURNALS))


def within(seen: Signature, folder: Path) -> Signature:
    """Only the files that lie in this very folder."""
    return tuple(file for file in seen if Path(file[0]).parent == folder)


def is_being_written(folder: Path) -> bool:
    """Whether a journal holds what the database file alone does not say."""
    return any(_size(folder / name) for name in JOURNALS)


def copy_database(source: Path, view: Path) -> None:
    """With its journal, so that what a crash left unfinished is undone in the copy."""
    for name in (NAME, *JOURNALS):
        with suppress(FileNotFoundError):
            shutil.copyfile(source / name, view / name)


def copy_consistently(source: Path, view: Path) -> None:
    """The database as of one moment, whoever writes; holds SQLite's read lock while it copies.

    Raises ``sqlite3.DatabaseError``.
    """
    address = f"{(source / NAME).as_uri()}?mode=ro"
    with (
        closing(sqlite3.connect(address, uri=True, timeout=LOCK_SECONDS)) as theirs,
        closing(sqlite3.connect(view / NAME)) as ours,
    ):
        theirs.backup(ours)


def copy_indexes(source: Path, view: Path, segments: list[str], room: int) -> list[str]:
    """As many of these as fit into ``room`` bytes, in this order; those that were copied."""
    copied = []
    for segment in segments:
        files = [file for name in INDEX_NAMES if (file := source / segment / name).is_file()]
        size = sum(_size(file) for file in files)
        if size > room:
            continue
        if files:
            (view / segment).mkdir()
        for file in files:
            with suppress(FileNotFoundError):
                shutil.copyfile(file, view / segment / file.name)
        room -= size
        copied.append(segment)
    return copied


def free_bytes(view: Path) -> int:
    """What may be copied: never more than half of the disk's room."""
    return min(MOST_BYTES, shutil.disk_usage(view).free // 2)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0

"""Old logs made smaller, for folders whose logs are wanted and whose room is needed."""

from __future__ import annotations

import gzip
import heapq
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO

from recovery.components.system import open_files
from recovery.components.system.folders import Root, Unsafe, is_regular, reached, walk
from recovery.components.system.survey import BLOCK, Age

LOG = re.compile(r".*\.log(\.\d+)?", re.DOTALL)
SUFFIX = ".gz"
DRAFT = ".recovery-draft"
ASIDE = ".recovery-aside"
LEAST_BYTES = 4096
"""A smaller log takes a block or two, compressed or not."""

MOST_LOGS = 256
LEVEL = 3
"""Of gzip: the last few percent would cost three times as long."""

_CHUNK = 1024 * 1024
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Untouched(Exception):
    """A log is left as it is; the text says why."""


def compress_below(
    root: Root, age: Age, is_short: Callable[[], bool], remaining: Callable[[], float]
) -> Iterator[tuple[str, int]]:
    """Compress old logs, the largest first, while room is short: path and bytes freed of each."""
    logs = heapq.nlargest(MOST_LOGS, _old_logs(root, age, remaining))
    for _, where, name in logs:
        if not is_short():
            return
        try:
            with reached(root, where) as folder:
                freed = compress(folder, name, age, remaining)
        except (Untouched, open_files.InUse, Unsafe) as reason:
            root.skip(str(reason))
        except OSError as error:
            root.skip(error.strerror or "cannot be compressed")
        else:
            yield "/".join((root.path, *where, name)), freed


def _old_logs(
    root: Root, age: Age, remaining: Callable[[], float]
) -> Iterator[tuple[int, tuple[str, ...], str]]:
    """Blocks, folder and name of each, also of one that a killed run put aside; its drafts go."""
    for batch in walk(root, age.is_unwritten, remaining):
        for found, status in batch.files:
            name, suffix = _left_by_us(found)
            if suffix == ASIDE:
                # It was renamed by us, and is no younger for that.
                age.lost_a_name(status)
            if not age.is_old(status):
                continue
            if suffix == DRAFT:
                _discard(batch.folder, found)
            elif LOG.fullmatch(name) and status.st_size >= LEAST_BYTES:
                yield status.st_blocks, batch.where, name


def _left_by_us(found: str) -> tuple[str, str]:
    """The log's name, and which suffix a run that was killed has left on it, if any."""
    for suffix in (DRAFT, ASIDE):
        if found.startswith(".") and found.endswith(suffix):
            return found[1 : -len(suffix)], suffix
    return found, ""


def _discard(folder: int, draft: str) -> None:
    """Remove a draft, unless somebody still writes it."""
    with suppress(OSError, open_files.InUse):
        descriptor = os.open(draft, _READ, dir_fd=folder)
        try:
            if open_files.claim(descriptor):
                os.unlink(draft, dir_fd=folder)
        finally:
            os.close(descriptor)


def compress(folder: int, name: str, age: Age, remaining: Callable[[], float]) -> int:
    """Replace a log by its ``.gz``; bytes freed. Raises ``Untouched``, ``InUse``, ``OSError``.

    Killed at any line it leaves the log, a proven copy, or both; the next run ends the work. Who
    opens the log meanwhile waits for one chunk, and gets it as it was.
    """
    _settle(folder, name, age)
    descriptor = os.open(name, _READ, dir_fd=folder)
    with open(descriptor, "rb", buffering=0) as source:  # noqa: PTH123 - a descriptor
        if not open_files.claim(descriptor):
            raise Untouched("its filesystem cannot say who opens it")
        status = os.fstat(descriptor)
        if not is_regular(status) or not age.is_old(status):
            raise Untouched("changed meanwhile")
        if status.st_nlink != 1:
            raise Untouched("it has another name, so nothing would be freed")
        if not _has_copy(folder, name, source):
            _make_copy(folder, name, source, status, remaining)
        copy = os.stat(name + SUFFIX, dir_fd=folder, follow_symlinks=False)
        _take_away(folder, name, descriptor, age)
    return (status.st_blocks - copy.st_blocks) * BLOCK


def _take_away(folder: int, name: str, descriptor: int, age: Age) -> None:
    """Remove the log by a name under which nobody looks for it, so that who came for it just before
    is seen to wait, and gets it back. Raises ``InUse``, ``Untouched``, ``OSError``."""
    _check_still_ours(folder, name, descriptor)
    aside = _aside(name)
    os.rename(name, aside, src_dir_fd=folder, dst_dir_fd=folder)
    if open_files.is_wanted_by_others(descriptor):
        _settle(folder, name, age)
        raise open_files.InUse("open in a process")
    os.unlink(aside, dir_fd=folder)


def _settle(folder: int, name: str, age: Age) -> None:
    """Give a log that lies aside its name back, no younger for it. Raises ``Untouched`` where
    another has that name by now: then both stay."""
    aside = _aside(name)
    try:
        left = os.stat(aside, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    with suppress(FileExistsError):
        os.link(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
    if os.stat(name, dir_fd=folder, follow_symlinks=False).st_ino != left.st_ino:
        raise Untouched(f"an earlier one still lies aside as {aside}")
    os.unlink(aside, dir_fd=folder)
    age.lost_a_name(os.stat(name, dir_fd=folder, follow_symlinks=False))


def _aside(name: str) -> str:
    return f".{name}{ASIDE}"


def _check_still_ours(folder: int, name: str, descriptor: int) -> None:
    if open_files.is_wanted_by_others(descriptor):
        raise open_files.InUse("open in a process")
    held, named = os.fstat(descriptor), os.stat(name, dir_fd=folder, follow_symlinks=False)
    if (held.st_dev, held.st_ino) != (named.st_dev, named.st_ino):
        raise Untouched("changed meanwhile")


def _has_copy(folder: int, name: str, source: IO[bytes]) -> bool:
    """Whether a run that was killed left its copy; raises ``Untouched`` for another file there."""
    try:
        copy = os.open(name + SUFFIX, _READ, dir_fd=folder)
    except FileNotFoundError:
        return False
    if not _holds(copy, source):
        raise Untouched(f"there is another {SUFFIX} of it")
    return True


def _make_copy(
    folder: int,
    name: str,
    source: IO[bytes],
    status: os.stat_result,
    remaining: Callable[[], float],
) -> None:
    """Write, prove and name the compressed copy; raises what ``compress`` does."""
    draft = f".{name}{DRAFT}"
    with suppress(FileNotFoundError):
        os.unlink(draft, dir_fd=folder)
    sink = os.open(draft, _NEW, 0o600, dir_fd=folder)
    try:
        with (
            open(sink, "wb", closefd=False) as raw,
            gzip.GzipFile("", "wb", LEVEL, raw, mtime=int(status.st_mtime)) as packed,
        ):
            while chunk := source.read(_CHUNK):
                remaining()
                if open_files.is_wanted_by_others(source.fileno()):
                    raise open_files.InUse("open in a process")
                packed.write(chunk)
        os.fchown(sink, status.st_uid, status.st_gid)
        os.fchmod(sink, status.st_mode & 0o7777)
        os.utime(sink, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.fsync(sink)
        os.lseek(sink, 0, os.SEEK_SET)
        if not _holds(os.dup(sink), source):
            raise Untouched("its copy came out different")
        # A link never replaces a file that somebody put there meanwhile, as a rename would.
        os.link(draft, name + SUFFIX, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    finally:
        os.close(sink)
        with suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=folder)


def _holds(copy: int, source: IO[bytes]) -> bool:
    """Whether a compressed file, whose descriptor is taken over, holds exactly the source."""
    source.seek(0)
    with open(copy, "rb") as raw, gzip.GzipFile(fileobj=raw) as packed:
        try:
            while chunk := source.read(_CHUNK):
                if packed.read(len(chunk)) != chunk:
                    return False
            return packed.read(1) == b""
        except (EOFError, gzip.BadGzipFile, zlib.error):
            return False

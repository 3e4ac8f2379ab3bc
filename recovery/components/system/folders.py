"""Walking a folder that somebody else may change meanwhile, without ever leaving it.

Everything is opened relative to a descriptor that is held already, never following a symbolic
link, so that whoever swaps a folder for a link gains nothing. A folder on another mount is not
entered, be it of the same filesystem: a bind mount leads as far away as a link.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from recovery.components.system import forbidden

Identity = tuple[int, int]
"""Device and inode."""

DEEPEST = 100
"""Levels below the root; each holds two descriptors while it is walked."""

_BATCH = 128
_CHUNK = 1024
_THROUGH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Unsafe(Exception):
    """A folder may not be entered; the text says why, as the end of a sentence."""


@dataclass(slots=True, kw_only=True)
class Root:
    """An opened folder of the policy. ``skipped`` counts by reason what was not entered.

    ``unwanted``: how many files the last walk passed by. ``young``: how many of them, when all
    were looked at, were not old enough.
    """

    path: str
    descriptor: int
    device: int
    mount: str
    spared: frozenset[Identity] = frozenset()
    skipped: dict[str, int] = field(default_factory=dict)
    unwanted: int = 0
    young: int = 0

    def skip(self, reason: str) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + 1


@dataclass(slots=True)
class Batch:
    """Some regular files of one folder, whose descriptor is open until the walk goes on."""

    folder: int
    where: tuple[str, ...]
    files: list[tuple[str, os.stat_result]] = field(default_factory=list)


@contextmanager
def opened(path: str, spared: Collection[Path] = ()) -> Iterator[Root]:
    """Open a folder of the policy; raises ``Unsafe``. ``spared``: folders inside to stay out of."""
    problem = forbidden.problem(path)
    if problem:
        raise Unsafe(problem)
    ours = frozenset(_identities(spared))
    descriptor = _open_from_slash(path, ours)
    try:
        yield Root(
            path=path,
            descriptor=descriptor,
            device=os.fstat(descriptor).st_dev,
            mount=_mount(descriptor),
            spared=ours,
        )
    finally:
        os.close(descriptor)


class _Level:
    """A folder that is being walked, and the files of it that nobody has been given yet."""

    __slots__ = ("batch", "entries", "is_over", "unwanted")

    def __init__(self, folder: int, where: tuple[str, ...]) -> None:
        """Takes the descriptor over; raises ``OSError``."""
        self.batch = Batch(folder, where)
        self.is_over = False
        self.unwanted = 0
        try:
            self.entries = os.scandir(folder)
        except BaseException:
            os.close(folder)
            raise

    def read(self, is_wanted: Callable[[os.stat_result], bool]) -> str | None:
        """Read on, up to a full batch or a folder, whose name is returned.

        ``is_over`` says that nothing was left. Raises ``OSError``.
        """
        files = self.batch.files
        self.is_over = True
        # Every file of a filesystem passes here, hence no call that is not needed.
        for entry in islice(self.entries, _CHUNK):
            self.is_over = False
            if entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                if is_wanted(status):
                    files.append((entry.name, status))
                    if len(files) >= _BATCH:
                        break
                else:
                    self.unwanted += 1
            elif entry.is_dir(follow_symlinks=False):
                return entry.name
        return None

    def take(self) -> Batch:
        taken = self.batch
        self.batch = Batch(taken.folder, taken.where)
        return taken

    def close(self) -> None:
        self.entries.close()
        os.close(self.batch.folder)


def walk(
    root: Root, is_wanted: Callable[[os.stat_result], bool], tick: Callable[[], object]
) -> Iterator[Batch]:
    """Every wanted regular file below a root. ``tick`` is called now and then, and may raise.

    What vanishes, cannot be read or may not be entered is skipped, and counted anew by each walk.
    Memory is that of one batch a level: no list of a folder's names is kept.
    """
    root.skipped.clear()
    root.unwanted = 0
    # Not a duplicate of the root's descriptor, whose place in the listing it would share.
    levels = [_Level(os.open(".", _READ, dir_fd=root.descriptor), ())]
    try:
        while levels:
            tick()
            level = levels[-1]
            try:
                inner = level.read(is_wanted)
                if inner:
                    levels.append(_inner(root, levels, inner))
                    continue
            except OSError as error:
                root.skip(error.strerror or "unreadable")
                continue
            except Unsafe as reason:
                root.skip(str(reason))
                continue
            if level.batch.files and (level.is_over or len(level.batch.files) >= _BATCH):
                yield level.take()
            if level.is_over:
                root.unwanted += level.unwanted
                levels.pop().close()
    finally:
        for level in levels:
            level.close()


def _inner(root: Root, levels: list[_Level], name: str) -> _Level:
    if len(levels) > DEEPEST:
        raise Unsafe("too deep")
    outer = levels[-1].batch
    return _Level(enter(root, outer.folder, name), (*outer.where, name))


def enter(root: Root, folder: int, name: str) -> int:
    """A descriptor of a folder in a folder; raises ``Unsafe`` or ``OSError``."""
    inner = os.open(name, _READ, dir_fd=folder)
    reason = _why_outside(root, inner)
    if reason:
        os.close(inner)
        raise Unsafe(reason)
    return inner


def _why_outside(root: Root, inner: int) -> str | None:
    status = os.fstat(inner)
    if status.st_dev != root.device or _mount(inner) != root.mount:
        return "on another filesystem"
    return "ours" if (status.st_dev, status.st_ino) in root.spared else None


@contextmanager
def reached(root: Root, where: Sequence[str]) -> Iterator[int]:
    """A descriptor of a folder by the names that lead to it; raises ``Unsafe``, ``OSError``."""
    folder = os.dup(root.descriptor)
    try:
        for name in where:
            inner = enter(root, folder, name)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def shown(*names: str) -> str:
    """Names as text for people: what is not UTF-8 or does not print is escaped."""
    joined = os.fsencode("/".join(names)).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in joined)


def is_regular(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode)


def _open_from_slash(path: str, spared: frozenset[Identity]) -> int:
    """From the root on, a name at a time, so that no part of it is a symbolic link."""
    folder = os.open("/", _THROUGH)
    names = [name for name in path.split("/") if name not in ("", ".")]
    for name, flags in zip(names, [*[_THROUGH] * (len(names) - 1), _READ], strict=True):
        try:
            inner = os.open(name, flags, dir_fd=folder)
        except OSError as error:
            raise Unsafe(_why_not(folder, name, error)) from error
        finally:
            os.close(folder)
        folder = inner
        status = os.fstat(folder)
        if (status.st_dev, status.st_ino) in spared:
            os.close(folder)
            raise Unsafe("is this system's own state: nothing in it is disposable")
    return folder


def _why_not(folder: int, name: str, error: OSError) -> str:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return f"cannot be opened: {error.strerror}"
    if stat.S_ISLNK(status.st_mode):
        return f"is reached through a symbolic link ({name}): name the real folder"
    return f"cannot be opened: {error.strerror}"


def _identities(paths: Collection[Path]) -> Iterator[Identity]:
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        yield status.st_dev, status.st_ino


def _mount(descriptor: int) -> str:
    """The mount that a descriptor is on; the device alone cannot tell a bind mount."""
    with open(f"/proc/self/fdinfo/{descriptor}") as facts:  # noqa: PTH123 - once a folder
        return next((line for line in facts if line.startswith("mnt_id:")), "")

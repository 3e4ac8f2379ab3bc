"""A snapshot unpacked beside the directory it is to replace, and seen to be what it was.

Its bytes are those that were judged, and that Chroma opened and read, when the snapshot was taken:
the digests say so. Where that was another version of ours they are judged anew, and where another
version of Chroma is installed by now, that one opens a copy of them as well.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from recovery.components.chromadb import child, swap
from recovery.components.chromadb.findings import Budget
from recovery.components.chromadb.snapshots import archive, verifying
from recovery.components.chromadb.snapshots.catalogue import Catalogue, need_room
from recovery.components.chromadb.snapshots.manifest import Manifest
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import NotCopied, SnapshotDamaged, TargetRefused
from recovery.events import Figure
from recovery.runtime import Remaining
from recovery.version import __version__

_OPEN = 0o755
CARRY = (sys.executable, "-m", "recovery.components.chromadb.snapshots.carrying")


def stage(
    target: ChromaTarget,
    chosen: Manifest,
    catalogue: Catalogue,
    *,
    path: Path,
    staged: Path,
    remaining: Remaining,
) -> dict[str, Figure]:
    """Unpack, hand over to the directory's owner, verify, and see it on the disk.

    Raises ``SnapshotDamaged`` where it is not what it should be, ``NotCopied`` where the disk has
    no room, ``TargetRefused`` where it could not belong to the directory's owner.
    """
    if not chosen.collections:
        raise SnapshotDamaged(f"snapshot {chosen.name} holds no collection")
    try:
        need_room(path.parent, chosen.bytes, f"snapshot {chosen.name}")
        swap.remove(staged)
        staged.mkdir(mode=0o700)
        with ExitStack() as begun:
            look = None if _is_known(chosen) else begun.enter_context(child.beginning(target))
            archive.unpack(catalogue.archive(chosen.name), chosen, staged, remaining)
            _hand_over(path, staged)
            # Whoever looks at it reads alone, so it may go to the disk meanwhile.
            synced = begun.enter_context(ThreadPoolExecutor(1)).submit(_sync_all, staged)
            figures = _inspect(look, staged, chosen, remaining) if look else _known(target, chosen)
            synced.result()
    except OSError as error:
        raise NotCopied(f"{error.filename or staged}: {error.strerror}") from error
    return figures


def _is_known(chosen: Manifest) -> bool:
    """Whether these very bytes were judged as we would judge them now."""
    return chosen.judged_by == __version__ and _installed() in (None, chosen.chroma)


def _known(target: ChromaTarget, chosen: Manifest) -> dict[str, Figure]:
    """The policy may expect more by now than it did; raises ``SnapshotDamaged``."""
    verifying.refuse_too_little(chosen.collections, target)
    return {
        "files": len(chosen.files),
        "collections": len(chosen.collections),
        "records": chosen.records,
        "integrity": "digests",
    }


def carry_over(
    damaged: Path, staged: Path, remaining: Remaining, command: Sequence[str] = CARRY
) -> dict[str, Figure]:
    """Have a child add what is newer than the snapshot and still readable in a damaged directory.

    The server of the damaged one must be stopped. Raises ``NotCopied`` where nothing of it can be
    read, or the child died; then what is staged is to be thrown away.
    """
    seconds = remaining()
    order = {"damaged": str(damaged), "restored": str(staged), "timeout": seconds}
    try:
        done = subprocess.run(
            command,
            input=json.dumps(order),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env=child.bare_environment(),
            cwd=staged,
        )
    except subprocess.TimeoutExpired as error:
        raise NotCopied(f"nothing was carried over within {seconds:.0f} s") from error
    said = child.last_said(done.stdout).get("carried")
    if done.returncode or said is None:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise NotCopied(f"nothing can be carried over: {why[:200]}")
    _hand_over(damaged, staged)
    _sync_all(staged)
    return {**said, "new_collections": ", ".join(said["new_collections"])}


def _hand_over(path: Path, staged: Path) -> None:
    """To whom the directory belongs: a server of another user could only read what is ours."""
    known = path.stat() if path.exists() else path.parent.stat()
    everything = [staged, *_below(staged)]
    ours = staged.stat()
    if (known.st_uid, known.st_gid) != (ours.st_uid, ours.st_gid):
        try:
            for one in everything:
                os.chown(one, known.st_uid, known.st_gid, follow_symlinks=False)
        except PermissionError as error:
            raise TargetRefused(
                f"{path} belongs to user {known.st_uid}, group {known.st_gid}, and what replaces it"
                " cannot be given to them by this user"
            ) from error
    staged.chmod(known.st_mode & 0o777 if path.exists() else _OPEN)


def _inspect(
    look: child.Look, staged: Path, chosen: Manifest, remaining: Remaining
) -> dict[str, Figure]:
    is_same = _installed() in (None, chosen.chroma)
    found = look(staged, Budget(remaining()), opens=not is_same)
    if found.finding is not None:
        raise SnapshotDamaged(
            f"snapshot {chosen.name} is not healthy: {found.finding.summary}",
            {"snapshot": chosen.name},
        )
    return found.figures


def _installed() -> str | None:
    try:
        return version("chromadb")
    except PackageNotFoundError:
        return None


def _sync_all(staged: Path) -> None:
    for one in (*_below(staged), staged):
        descriptor = os.open(one, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _below(folder: Path) -> Iterator[Path]:
    for base, folders, names in os.walk(folder):
        for name in (*names, *folders):
            yield Path(base) / name

"""Removing sealed files at the end of their retention, the oldest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from recovery.audit import chain, sealed
from recovery.audit.chain import Anchor, Link, Numbered
from recovery.audit.sealed import Header

log = structlog.get_logger()


def retire(
    folder: Path,
    anchor: Anchor,
    retention_days: float,
    now: datetime,
    hold: Callable[[Anchor], None],
) -> Iterator[Anchor]:
    """Remove what is past its retention; yields the anchor behind each removal.

    The anchor names a file as removed before it is, so that a kill leaves one file too many. It
    keeps the digest that the next file knows, so that a damaged file leaves no trace behind.
    """
    oldest = now - timedelta(days=retention_days)
    days = {chain.day_of(path) for path in chain.paths(folder)}
    if not any(_is_before(day, oldest) or not _is_before(day, now) for day in days):
        return
    files, _ = chain.numbered(folder)
    followers: list[Numbered | None] = [*files[1:], None]
    for file, follower in zip(files, followers, strict=True):
        if not _is_past(file.header, oldest):
            return
        if anchor.removed is None or file.header.number > anchor.removed.number:
            link = file.as_link(_digest(file, follower, anchor.last))
            anchor = anchor.model_copy(update={"removed": link})
            chain.write_anchor(folder, anchor)
            hold(anchor)
        file.path.unlink()
        chain.sync_folder(folder)
        log.info("audit file removed", file=file.path.name)
        yield anchor


def _is_past(header: Header, oldest: datetime) -> bool:
    """By its day, or, where a clock had run ahead, by when it was sealed."""
    sealed_at = datetime.fromisoformat(header.sealed_at)
    return _is_before(header.day, oldest) or sealed_at < oldest


def _is_before(day: str, moment: datetime) -> bool:
    return day < moment.astimezone(UTC).date().isoformat()


def _digest(file: Numbered, follower: Numbered | None, last: Link | None) -> str:
    """What the chain knows of it, else what it is."""
    previous = follower.header.previous if follower else None
    if previous is not None and previous.file == file.header.file:
        return previous.sha256
    if last is not None and last.file == file.header.file:
        return last.sha256
    return sealed.digest_of_file(file.path)

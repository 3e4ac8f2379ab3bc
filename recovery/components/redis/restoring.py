"""The undo of ``redis.flush_corrupted``: keys come back as they were, and never over newer ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from recovery.components.redis import archive, keyspace
from recovery.components.redis.archive import KeyArchive, Record
from recovery.components.redis.connection import bytewise, named_errors
from recovery.components.redis.flush_corrupted import ANSWER_SECONDS, FlushCorrupted
from recovery.components.redis.keyspace import (
    MISSING,
    OTHER,
    RESTORED,
    SAME,
    UNCLAIMED,
    Keyspace,
    digest,
)
from recovery.components.redis.pace import Pace
from recovery.components.redis.target import RedisTarget
from recovery.errors import NotKept, RemedyError, WouldOverwrite
from recovery.strategy import Journal, Kept

EXPIRING_MS = 1000
"""A key that expires within this time may be gone by the time at which it is read again."""


def restore_flushed(
    target: RedisTarget, parameters: FlushCorrupted, journal: Journal, kept: Kept
) -> None:
    """Raises ``WouldOverwrite`` where newer data stands and may not be replaced, ``NotKept`` where
    the archive is missing or damaged. May be run again at any time: what is back stays as it is.
    """
    path = kept.folder / archive.FILE
    if not path.is_file():
        raise NotKept(f"the archive of recovery {kept.recovery_id} is gone from {kept.folder}")
    if kept.facts.get("url") != target.url:
        journal.note("the target has another address now", was=str(kept.facts.get("url")))
    timeout = min(journal.remaining(), ANSWER_SECONDS)
    with bytewise(target, timeout) as client, ExitStack() as files, named_errors(target):
        pace = Pace(parameters.server_share)
        keys = keyspace.open_keyspace(client, pace, parameters.scan_count)
        _Restoring(keys, target.url, path, journal, files).run()


class _Restoring:
    def __init__(
        self, keys: Keyspace, url: str, path: Path, journal: Journal, files: ExitStack
    ) -> None:
        self.keys = keys
        self.url = url
        self.path = path
        self.journal = journal
        self._files = files
        self._aside: tuple[Kept, KeyArchive] | None = None
        self._old = archive.superseded(path)
        # Sets and hashes that look different may be equal; a rehearsal writes nothing to find out.
        scratch = f"{journal.own_prefix}scratch:{journal.recovery_id}".encode()
        self._scratch = None if journal.dry_run else scratch

    def run(self) -> None:
        found = self._examine()
        self.journal.note("compared with what is kept", **found)
        if found["other"] and not self.journal.overwrite:
            raise WouldOverwrite(
                f"{found['other']} of the keys hold other data by now; with overwrite that is kept "
                "aside and replaced"
            )
        self.journal.change(
            "keys brought back", self._restore, keys=found["missing"] + found["other"]
        )
        if self._aside is not None:
            kept, aside = self._aside
            kept.store(f"{aside.kept} newer keys that an undo replaced")
        if not self.journal.dry_run:
            self._verify()
        damaged = archive.unreadable_bytes(self.path)
        if damaged:
            self.journal.note("the end of the archive is torn and was passed over", bytes=damaged)

    def _examine(self, margin_ms: int = 0) -> dict[str, int]:
        """How many keys are missing, the same, other or past their expiry."""
        count = Counter({"missing": 0, "same": 0, "other": 0})
        names = {MISSING: "missing", SAME: "same", OTHER: "other"}
        for records, expired in self._blocks(margin_ms):
            count["expired"] += expired
            count.update(names[one] for one in self.keys.compare(records, self._scratch))
        return dict(count)

    def _restore(self) -> int:
        restored = 0
        for records, _ in self._blocks():
            answers = self.keys.restore(records, [UNCLAIMED] * len(records))
            restored += answers.count(RESTORED)
            if not self.journal.overwrite:
                continue
            standing = [r for r, end in zip(records, answers, strict=True) if end != RESTORED]
            compared = self.keys.compare(standing, self._scratch)
            other = [r for r, is_ in zip(standing, compared, strict=True) if is_ == OTHER]
            if other:
                restored += self._replace(other)
        return restored

    def _replace(self, records: Sequence[Record]) -> int:
        """Keep what stands there, on the disk, then replace exactly that."""
        _, aside = self._aside or self._open_aside()
        stands = {found.key: found for found in self.keys.present([r.key for r in records])}
        kept = [stands[record.key] for record in records if record.key in stands]
        if kept:
            aside.append(kept)
        claimed = [
            digest(stands[record.key].dump) if record.key in stands else UNCLAIMED
            for record in records
        ]
        answers = self.keys.restore(records, claimed)
        if kept:
            replaced = dict(zip((r.key for r in records), answers, strict=True))
            aside.settle(
                bytes(
                    archive.TAKEN if replaced[found.key] == RESTORED else archive.LEFT
                    for found in kept
                )
            )
        return answers.count(RESTORED)

    def _open_aside(self) -> tuple[Kept, KeyArchive]:
        kept = self.journal.keep()
        kept.store("newer keys that an undo replaced", url=self.url)
        aside = self._files.enter_context(KeyArchive(kept.folder / archive.FILE, kept.room))
        if aside.pending is not None:
            # An earlier run was killed here: whether it replaced them, nobody knows.
            aside.settle(bytes([archive.UNSURE]) * len(aside.pending.records))
        self._aside = (kept, aside)
        return self._aside

    def _verify(self) -> None:
        """Read again what was brought back; raises ``RemedyError`` where it is not there."""
        found = self._examine(EXPIRING_MS)
        self.journal.note("read again what was brought back", **found)
        if found["missing"] or found["other"]:
            raise RemedyError(
                f"{found['missing']} keys are gone again and {found['other']} hold other data, "
                f"of {sum(found.values())}; the undo may be repeated"
            )

    def _blocks(self, margin_ms: int = 0) -> Iterator[tuple[list[Record], int]]:
        """What is to be brought back of each block, and how many of its keys have expired."""
        for number, block in enumerate(archive.blocks(self.path)):
            self.journal.remaining()
            now_ms = self.keys.now_ms() + margin_ms
            wanted = [r for place, r in block.removed() if (number, place) not in self._old]
            alive = [r for r in wanted if r.expires_ms < 0 or r.expires_ms > now_ms]
            yield alive, len(wanted) - len(alive)

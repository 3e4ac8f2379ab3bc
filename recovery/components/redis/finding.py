"""Finding the corrupted keys of a rule that may be removed, and counting all that is met."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from recovery.components.redis import keyspace, spared
from recovery.components.redis.archive import Record
from recovery.components.redis.keyspace import Keyspace, Page, Rule, Suspect
from recovery.events import Figure
from recovery.strategy import Journal

KEYS_PER_BLOCK = 2000
BYTES_PER_BLOCK = 4 * 1024 * 1024
"""What is put aside, synced and then removed at once; one larger value is a block of its own."""

PROGRESS_SECONDS = 1.0

REASONS = {
    keyspace.NO_TTL: "no_ttl",
    keyspace.OTHER_TYPE: "other_type",
    keyspace.OTHER_LENGTH: "other_length",
    keyspace.TO_BE_READ: "undecodable",
}


@dataclass(slots=True)
class Tally:
    """What was counted so far, in keys."""

    seen: int = 0
    found: int = 0
    removed: int = 0
    changing: int = 0
    spared: int = 0
    unread: int = 0
    too_large: int = 0
    reasons: Counter[int] = field(default_factory=Counter)

    def figures(self) -> dict[str, Figure]:
        """What is worth a line: the main counts, and of the rest what is not zero."""
        rest = {
            "changing": self.changing,
            "spared": self.spared,
            "too_long_to_read": self.unread,
            "too_large": self.too_large,
        }
        main: dict[str, Figure] = {"seen": self.seen, "found": self.found, "removed": self.removed}
        said = {name: count for name, count in rest.items() if count}
        return {**main, **said, **named(self.reasons)}


class Finder:
    """Works through one keyspace. ``largest``: bytes in memory of the largest key to be removed."""

    def __init__(self, keys: Keyspace, journal: Journal, largest: int) -> None:
        self.keys = keys
        self.tally = Tally()
        self._journal = journal
        self._own_prefix = journal.own_prefix.encode()
        self._largest = largest
        self._queues: set[bytes] | None = None
        self._told = time.monotonic()

    def groups(self, rule: Rule) -> Iterator[list[Record]]:
        """What is to be removed of the rule's keyspace, in groups of a block's size."""
        group: list[Record] = []
        weight = 0
        for page in self.pages(rule, dump=True):
            for some in self._dumped(rule, page):
                group += some
                weight += sum(len(record.dump) for record in some)
                if len(group) >= KEYS_PER_BLOCK or weight >= BYTES_PER_BLOCK:
                    yield group
                    group, weight = [], 0
        if group:
            yield group

    def pages(self, rule: Rule, *, dump: bool) -> Iterator[Page]:
        """Scan the rule's keyspace once; raises ``DeadlineExceeded``."""
        cursor = 0
        while True:
            self._journal.remaining()
            page = self.keys.survey(rule, cursor, dump=dump)
            self.tally.seen += page.seen
            yield page
            self._progress(rule)
            cursor = page.cursor
            if cursor == 0:
                return

    def dump(self, rule: Rule, suspects: Sequence[Suspect]) -> list[Record]:
        """Those that are corrupted now, and no queue."""
        records = self.keys.dump(rule, suspects)
        return self._removable(records)

    def _dumped(self, rule: Rule, page: Page) -> Iterator[list[Record]]:
        """The records of a page and then of its suspects, in parts that fit into memory."""
        records = self._removable(page.records)
        if records:
            reasons = dict(zip((r.key for r in page.records), page.reasons, strict=True))
            self._count(records, reasons)
            yield records
        suspects = self.convict(rule, page.suspects)
        reasons = {suspect.key: suspect.reason[0] for suspect in suspects}
        for some in keyspace.batches(suspects, lambda suspect: suspect.bytes):
            records = self.dump(rule, some)
            self._count(records, reasons)
            yield records

    def _count(self, records: Sequence[Record], reasons: Mapping[bytes, int]) -> None:
        self.tally.found += len(records)
        self.tally.reasons.update(reasons[record.key] for record in records)

    def _removable(self, records: Sequence[Record]) -> list[Record]:
        """Without what is spared by its name, and without queues."""
        allowed = [r for r in records if not spared.is_spared(r.key, self._own_prefix)]
        lists = [record.key for record in allowed if spared.is_list(record.dump)]
        queues = set(lists) - self.without_queues(lists)
        self.tally.spared += len(records) - len(allowed) + len(queues)
        return [record for record in allowed if record.key not in queues]

    def convict(self, rule: Rule, suspects: Sequence[Suspect]) -> list[Suspect]:
        """Those that are corrupted and may be removed; values are read where the rule says so."""
        candidates = []
        for suspect in suspects:
            if spared.is_spared(suspect.key, self._own_prefix):
                self.tally.spared += 1
            elif suspect.reason == keyspace.TOO_LONG:
                self.tally.unread += 1
            elif suspect.bytes > self._largest:
                self.tally.too_large += 1
            else:
                candidates.append(suspect)
        return list(self._read(rule, candidates)) if rule.declared.reads_values else candidates

    def without_queues(self, lists: Sequence[bytes]) -> set[bytes]:
        """Of these lists, those that are no queue: no binding names them, no message is in them."""
        if not lists:
            return set()
        if self._queues is None:
            self._queues = self.keys.queues()
        heads = self.keys.first_elements(lists)
        return {
            key
            for key, head in zip(lists, heads, strict=True)
            if not spared.is_queue(key, self._queues) and not spared.is_message(head)
        }

    def _read(self, rule: Rule, suspects: Sequence[Suspect]) -> Iterator[Suspect]:
        to_read = [suspect for suspect in suspects if suspect.reason == keyspace.TO_BE_READ]
        yield from (suspect for suspect in suspects if suspect.reason != keyspace.TO_BE_READ)
        for some in keyspace.batches(to_read, lambda suspect: suspect.bytes):
            values = self.keys.values([suspect.key for suspect in some])
            for suspect, value in zip(some, values, strict=True):
                if value is not None and not rule.declared.decodes(value):
                    yield suspect._replace(digest=keyspace.digest(value))

    def _progress(self, rule: Rule) -> None:
        if time.monotonic() - self._told >= PROGRESS_SECONDS:
            self._told = time.monotonic()
            self._journal.note(f"looking through {rule.declared.pattern}", **self.tally.figures())


def named(reasons: Counter[int]) -> dict[str, Figure]:
    """How many keys were corrupted for which reason."""
    return {name: reasons[code[0]] for code, name in REASONS.items() if reasons[code[0]]}

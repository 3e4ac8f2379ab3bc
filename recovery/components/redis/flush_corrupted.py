"""``redis.flush_corrupted``: remove the corrupted keys of declared keyspaces, and keep them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from pydantic import Field

from recovery.components.redis import archive, keyspace, spared
from recovery.components.redis.archive import KeyArchive, Record
from recovery.components.redis.connection import bytewise, named_errors
from recovery.components.redis.corruption import KeyPattern
from recovery.components.redis.keyspace import Keyspace, Rule, Suspect
from recovery.components.redis.pace import Pace
from recovery.components.redis.target import RedisTarget
from recovery.errors import NothingKept, RemedyError, StillUnhealthy, TargetRefused
from recovery.events import Figure
from recovery.strategy import Journal, Kept, Parameters, Scope, strategy

KEYS_PER_BLOCK = 2000
BYTES_PER_BLOCK = 4 * 1024 * 1024
"""What is put aside, synced and then removed at once; one larger value is a block of its own."""

ROUNDS = 3
"""How often a key that changes between being kept and being removed is tried again."""

SAMPLES = 5
PROGRESS_SECONDS = 1.0
ANSWER_SECONDS = 10.0
FREED_SECONDS = 1.0
_LONGEST_NAME = 80
_LONGEST_SUMMARY = 160
_POLL_SECONDS = 0.02

REASONS = {
    keyspace.NO_TTL: "no_ttl",
    keyspace.OTHER_TYPE: "other_type",
    keyspace.OTHER_LENGTH: "other_length",
    keyspace.TO_BE_READ: "undecodable",
}


class FlushCorrupted(Parameters):
    """Where to look, what is corrupted there, and how much of the server's time it may take.

    ``scan_count``: keys looked at in one call. ``server_share``: the part of the time in which the
    server may work for the flush. A value longer than ``decode_at_most_bytes`` is not read, and a
    key larger than ``largest_key_mb`` in memory is not removed; both are reported.
    """

    key_patterns: tuple[KeyPattern, ...] = ()
    scan_count: int = Field(default=250, ge=10, le=10_000)
    server_share: float = Field(default=0.8, gt=0, le=1)
    decode_at_most_bytes: int = Field(default=1024 * 1024, ge=1)
    largest_key_mb: int = Field(default=64, ge=1, le=512)

    def lack(self) -> str | None:
        if self.key_patterns:
            return None
        return "key_patterns must name the keyspaces in which keys may be removed"


class FlushScope(Scope):
    """``pattern``: only this one of the policy's patterns."""

    pattern: str | None = None


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
    reasons: Counter[str] = field(default_factory=Counter)

    def figures(self) -> dict[str, Figure]:
        """What is worth a line: the main counts, and of the rest what is not zero."""
        rest = {
            "changing": self.changing,
            "spared": self.spared,
            "too_long_to_read": self.unread,
            "too_large": self.too_large,
            **self.reasons,
        }
        main: dict[str, Figure] = {"seen": self.seen, "found": self.found, "removed": self.removed}
        return main | {name: count for name, count in rest.items() if count}


@strategy(
    component="redis",
    summary="Remove the corrupted keys of declared keyspaces, and keep them.",
    parameters=FlushCorrupted,
    scope=FlushScope,
    destructive=True,
    judges_itself=True,
    undo="recovery.components.redis.restoring:restore_flushed",
    timeout_seconds=30.0,
)
def flush_corrupted(target: RedisTarget, parameters: FlushCorrupted, journal: Journal) -> None:
    """Raises ``NothingKept`` where what is found cannot be put aside, ``TargetRefused`` where the
    user lacks a right, ``StillUnhealthy`` where corrupted keys come back; all say how far it got.
    """
    lack = parameters.lack()
    if lack is not None:
        raise RemedyError(lack)
    rules = _rules(parameters, journal.scope)
    with bytewise(target, min(journal.remaining(), ANSWER_SECONDS)) as client:
        with named_errors(target):
            keys = keyspace.open_keyspace(
                client, Pace(parameters.server_share), parameters.scan_count
            )
        finder = _Finder(keys, parameters, journal)
        if journal.dry_run:
            with named_errors(target):
                _rehearse(finder, rules, journal)
        else:
            _Flush(target, finder, rules, journal).run()


def _rules(parameters: FlushCorrupted, scope: Scope) -> list[Rule]:
    chosen = scope.pattern if isinstance(scope, FlushScope) else None
    rules = [
        Rule(declared, parameters.decode_at_most_bytes)
        for declared in parameters.key_patterns
        if chosen in (None, declared.pattern)
    ]
    if not rules:
        names = ", ".join(declared.pattern for declared in parameters.key_patterns)
        raise RemedyError(f"{chosen!r} is none of the policy's key_patterns: {names}")
    return rules


class _Finder:
    """Finds the corrupted keys of a rule that may be removed, and counts the others."""

    def __init__(self, keys: Keyspace, parameters: FlushCorrupted, journal: Journal) -> None:
        self.keys = keys
        self.tally = Tally()
        self._journal = journal
        self._own_prefix = journal.own_prefix.encode()
        self._largest = parameters.largest_key_mb * 1024 * 1024
        self._queues: set[bytes] | None = None
        self._told = time.monotonic()

    def groups(self, rule: Rule) -> Iterator[list[Suspect]]:
        """Scan the rule's keyspace once; raises ``DeadlineExceeded``."""
        group: list[Suspect] = []
        weight, cursor = 0, 0
        while True:
            self._journal.remaining()
            page = self.keys.survey(rule, cursor)
            self.tally.seen += page.seen
            cursor = page.cursor
            for suspect in self.convict(rule, page.suspects):
                if group and weight + suspect.bytes > BYTES_PER_BLOCK:
                    yield group
                    group, weight = [], 0
                group.append(suspect)
                weight += suspect.bytes
            if len(group) >= KEYS_PER_BLOCK or (cursor == 0 and group):
                yield group
                group, weight = [], 0
            self._progress(rule)
            if cursor == 0:
                return

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


class _Flush:
    """One run, or the rest of one that was killed."""

    def __init__(
        self, target: RedisTarget, finder: _Finder, rules: Sequence[Rule], journal: Journal
    ) -> None:
        self.target = target
        self.finder = finder
        self.keys = finder.keys
        self.tally = finder.tally
        self.rules = rules
        self.journal = journal
        self._stored: KeyArchive | None = None

    def run(self) -> None:
        kept = self.journal.keep()
        with ExitStack() as open_files:
            try:
                with named_errors(self.target):
                    self._run(kept, open_files)
            except RemedyError as error:
                told = f"{error.message}; {self.tally.removed} of {self.tally.found} found are gone"
                raise type(error)(told, error.facts) from error
            finally:
                self._describe(kept)

    def _run(self, kept: Kept, open_files: ExitStack) -> None:
        before, _ = self.keys.memory()
        if (kept.folder / archive.FILE).exists():
            self._resume(self._open(kept, open_files))
        for number, rule in enumerate(self.rules):
            for group in self.finder.groups(rule):
                if self._stored is None:
                    self._begin(kept, open_files, group[0])
                self._take(number, rule, group)
        figures = self.tally.figures()
        remaining = self._remaining()
        self.journal.note(
            "looked at again what was found",
            still_corrupted=remaining,
            **figures,
            kept_bytes=self._stored.size if self._stored else 0,
            memory_before_mb=round(before / 1e6, 1),
            memory_after_mb=round(self._memory_after() / 1e6, 1),
        )
        if remaining:
            raise StillUnhealthy(
                f"{remaining} keys are corrupted again, or change faster than they can be kept"
            )

    def _open(self, kept: Kept, open_files: ExitStack) -> KeyArchive:
        self._stored = open_files.enter_context(KeyArchive(kept.folder / archive.FILE, kept.room))
        return self._stored

    def _resume(self, stored: KeyArchive) -> None:
        """Finish the block that may have been acted upon when we were killed."""
        self.journal.note("taken up again", kept_before=stored.kept)
        if stored.pending is not None:
            self._settle(stored, self.keys.unlink(stored.pending.records), resumed=True)

    def _begin(self, kept: Kept, open_files: ExitStack, first: Suspect) -> None:
        """Before the first key is removed: see that it can be brought back, and say that it can."""
        if not keyspace.may_restore(self.keys.client, first.key):
            raise TargetRefused(
                f"{self.target.url} does not let us RESTORE: what is removed could not come back"
            )
        kept.store("corrupted keys, still being removed", url=self.target.url)
        self.journal.change(
            "corrupted keys are kept, then removed", lambda: self._open(kept, open_files)
        )

    def _take(self, number: int, rule: Rule, group: Sequence[Suspect]) -> None:
        """Keep a group on the disk, then remove what is still as it was kept."""
        stored = self._stored
        if stored is None:
            return
        records = self._dump(rule, group)
        self._count(group, records)
        for _ in range(ROUNDS):
            if not records:
                return
            self.journal.remaining()
            stored.append(records, number)
            fate = self._settle(stored, self.keys.unlink(records))
            changed = [r.key for r, end in zip(records, fate, strict=True) if end == archive.LEFT]
            still = self.finder.convict(rule, self.keys.judge(rule, changed))
            records = self._dump(rule, still)
            self.tally.found -= len(changed) - len(records)
        self.tally.changing += len(records)

    def _dump(self, rule: Rule, group: Sequence[Suspect]) -> list[Record]:
        """What is corrupted now, and no queue."""
        records = self.keys.dump(rule, group)
        lists = [record.key for record in records if spared.is_list(record.dump)]
        if not lists:
            return records
        queues = set(lists) - self.finder.without_queues(lists)
        self.tally.spared += len(queues)
        return [record for record in records if record.key not in queues]

    def _count(self, group: Sequence[Suspect], records: Sequence[Record]) -> None:
        self.tally.found += len(records)
        suspects = {suspect.key: suspect for suspect in group}
        self.tally.reasons.update(REASONS[suspects[record.key].reason] for record in records)

    def _settle(self, stored: KeyArchive, answers: bytes, *, resumed: bool = False) -> bytes:
        """Write down what became of the pending block.

        A key that is there and changed was left; seen again after a kill, it may have been removed
        then and made anew. One that is gone may have been removed by us.
        """
        became = {
            keyspace.REMOVED: archive.TAKEN,
            keyspace.CHANGED: archive.UNSURE if resumed else archive.LEFT,
            keyspace.GONE: archive.UNSURE,
        }
        fate = bytes(became[answer] for answer in answers)
        stored.settle(fate)
        self.tally.removed += fate.count(archive.TAKEN)
        return fate

    def _remaining(self) -> int:
        """How many of the keys that were found, by this run or before it, are corrupted now."""
        if self._stored is None:
            return 0
        remaining = 0
        for block in archive.blocks(self._stored.path):
            self.journal.remaining()
            rule = self.rules[block.tag]
            suspects = self.keys.judge(rule, [record.key for record in block.records])
            remaining += len(self.finder.convict(rule, suspects))
        return remaining

    def _memory_after(self) -> int:
        """UNLINK frees in the background: wait a moment for it."""
        deadline = time.monotonic() + FREED_SECONDS
        while True:
            used, pending = self.keys.memory()
            if not pending or time.monotonic() > deadline:
                return used
            time.sleep(_POLL_SECONDS)

    def _describe(self, kept: Kept) -> None:
        if self._stored is None:
            return
        names = ", ".join(rule.declared.pattern for rule in self.rules)
        try:
            kept.store(f"{self._stored.kept} corrupted keys of {names}"[:_LONGEST_SUMMARY])
        except NothingKept as error:
            self.journal.note("the summary of what is kept could not be renewed", why=error.message)


def _rehearse(finder: _Finder, rules: Sequence[Rule], journal: Journal) -> None:
    """Count and name; read, and change nothing."""
    for rule in rules:
        samples: list[str] = []
        keys = size = 0
        reasons: Counter[str] = Counter()
        for group in finder.groups(rule):
            lists = finder.keys.lists_among([suspect.key for suspect in group])
            queues = set(lists) - finder.without_queues(lists)
            finder.tally.spared += len(queues)
            doomed = [suspect for suspect in group if suspect.key not in queues]
            keys += len(doomed)
            size += sum(suspect.bytes for suspect in doomed)
            reasons.update(REASONS[suspect.reason] for suspect in doomed)
            samples += [_shown(suspect.key) for suspect in doomed[: SAMPLES - len(samples)]]
        found: dict[str, Figure] = {"keys": keys, "memory_bytes": size, **reasons}
        if samples:
            found["samples"] = " ".join(samples)
        journal.change(f"corrupted keys of {rule.declared.pattern} removed", _nothing, **found)
    journal.note("looked through", **finder.tally.figures())


def _nothing() -> None:
    """What a rehearsal does."""


def _shown(key: bytes) -> str:
    return key.decode(errors="backslashreplace")[:_LONGEST_NAME]

"""``redis.flush_corrupted``: remove the corrupted keys of declared keyspaces, and keep them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

from pydantic import Field

from recovery.components.redis import archive, keyspace
from recovery.components.redis.archive import KeyArchive, Record
from recovery.components.redis.connection import bytewise, named_errors
from recovery.components.redis.corruption import KeyPattern
from recovery.components.redis.finding import Finder, named
from recovery.components.redis.keyspace import Rule
from recovery.components.redis.pace import Pace
from recovery.components.redis.target import RedisTarget
from recovery.errors import NothingKept, RemedyError, StillUnhealthy, TargetRefused
from recovery.events import Figure
from recovery.strategy import Journal, Kept, Parameters, Scope, strategy

ROUNDS = 3
"""How often a key that changes between being kept and being removed is tried again."""

SAMPLES = 5
ANSWER_SECONDS = 10.0
FREED_SECONDS = 1.0
_LONGEST_NAME = 80
_LONGEST_SUMMARY = 160
_POLL_SECONDS = 0.02


class FlushCorrupted(Parameters):
    """Where to look, what is corrupted there, and how much of the server's time it may take.

    ``scan_count``: keys looked at in one call. ``server_share``: the part of the time in which the
    server may work for the flush. A value longer than ``decode_at_most_bytes`` is not read, and a
    key larger than ``largest_key_mb`` in memory is not removed; both are reported.
    """

    key_patterns: tuple[KeyPattern, ...] = ()
    scan_count: int = Field(default=250, ge=10, le=10_000)
    server_share: float = Field(default=0.9, gt=0, le=1)
    decode_at_most_bytes: int = Field(default=1024 * 1024, ge=1)
    largest_key_mb: int = Field(default=64, ge=1, le=512)

    def lack(self) -> str | None:
        if self.key_patterns:
            return None
        return "key_patterns must name the keyspaces in which keys may be removed"


class FlushScope(Scope):
    """``pattern``: only this one of the policy's patterns."""

    pattern: str | None = None


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
    rules = chosen_rules(parameters, journal.scope)
    with bytewise(target, min(journal.remaining(), ANSWER_SECONDS)) as client:
        with named_errors(target):
            keys = keyspace.open_keyspace(
                client, Pace(parameters.server_share), parameters.scan_count
            )
        finder = Finder(keys, journal, parameters.largest_key_mb * 1024 * 1024)
        if journal.dry_run:
            with named_errors(target):
                _rehearse(finder, rules, journal)
        else:
            _Flush(target, finder, rules, journal).run()


def chosen_rules(parameters: FlushCorrupted, scope: Scope) -> list[Rule]:
    """Every rule of the policy, or the one that the event names; raises ``RemedyError``."""
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


class _Flush:
    """One run, or the rest of one that was killed."""

    def __init__(
        self, target: RedisTarget, finder: Finder, rules: Sequence[Rule], journal: Journal
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
                    self._begin(kept, open_files, group[0].key)
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

    def _begin(self, kept: Kept, open_files: ExitStack, first: bytes) -> None:
        """Before the first key is removed: see that it can be brought back, and say that it can."""
        if not keyspace.may_restore(self.keys.client, first):
            raise TargetRefused(
                f"{self.target.url} does not let us RESTORE: what is removed could not come back"
            )
        kept.store("corrupted keys, still being removed", url=self.target.url)
        self.journal.change(
            "corrupted keys are kept, then removed", lambda: self._open(kept, open_files)
        )

    def _take(self, number: int, rule: Rule, records: Sequence[Record]) -> None:
        """Keep a group on the disk, then remove what is still as it was kept."""
        stored = self._stored
        if stored is None:
            return
        for _ in range(ROUNDS):
            if not records:
                return
            self.journal.remaining()
            stored.append(records, number)
            fate = self._settle(stored, self.keys.unlink(records))
            changed = [r.key for r, end in zip(records, fate, strict=True) if end == archive.LEFT]
            still = self.finder.convict(rule, self.keys.judge(rule, changed))
            records = self.finder.dump(rule, still)
            self.tally.found -= len(changed) - len(records)
        self.tally.changing += len(records)

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


def _rehearse(finder: Finder, rules: Sequence[Rule], journal: Journal) -> None:
    """Count and name; read, and change nothing."""
    for rule in rules:
        samples: list[str] = []
        keys = size = 0
        reasons: Counter[int] = Counter()
        for page in finder.pages(rule, dump=False):
            suspects = finder.convict(rule, page.suspects)
            lists = finder.keys.lists_among([suspect.key for suspect in suspects])
            queues = set(lists) - finder.without_queues(lists)
            finder.tally.spared += len(queues)
            doomed = [suspect for suspect in suspects if suspect.key not in queues]
            keys += len(doomed)
            size += sum(suspect.bytes for suspect in doomed)
            reasons.update(suspect.reason[0] for suspect in doomed)
            samples += [_shown(suspect.key) for suspect in doomed[: SAMPLES - len(samples)]]
        found: dict[str, Figure] = {"keys": keys, "memory_bytes": size, **named(reasons)}
        if samples:
            found["samples"] = " ".join(samples)
        finder.tally.found += keys
        journal.change(f"corrupted keys of {rule.declared.pattern} removed", _nothing, **found)
    journal.note("looked through", **finder.tally.figures())


def _nothing() -> None:
    """What a rehearsal does."""


def _shown(key: bytes) -> str:
    return key.decode(errors="backslashreplace")[:_LONGEST_NAME]

"""The keyspace of a server on which we may run no scripts: WATCH, look, MULTI, EXEC.

Slower, and as safe: whatever changes between looking and removing makes the transaction fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import exceptions

from recovery.components.redis.archive import NO_EXPIRY, Record
from recovery.components.redis.keyspace import (
    CHANGED,
    EXPIRY_SLACK_MS,
    GONE,
    MISSING,
    NO_TTL,
    OTHER,
    OTHER_LENGTH,
    OTHER_TYPE,
    REMOVED,
    RESTORED,
    SAME,
    TAKEN_BY_OTHERS,
    TO_BE_READ,
    TOO_LONG,
    UNCLAIMED,
    Keyspace,
    Page,
    Rule,
    Suspect,
    batches,
    digest,
)


class WatchingKeyspace(Keyspace):
    """See ``Keyspace``."""

    def survey(
        self,
        rule: Rule,
        cursor: int,
        *,
        dump: bool,  # noqa: ARG002 - looking and dumping are two steps here
    ) -> Page:
        following, keys = self.pace.call(
            self.client.scan, cursor, match=rule.declared.pattern, count=self.scan_count
        )
        return Page(following, len(keys), self.judge(rule, keys))

    def judge(self, rule: Rule, keys: Sequence[bytes]) -> list[Suspect]:
        found = []
        for some in batches(keys):
            pipe = self.client.pipeline(transaction=False)
            for key in some:
                pipe.pttl(key)
                pipe.type(key)
                pipe.strlen(key)
                pipe.memory_usage(key)
            answers = self.pace.call(pipe.execute, raise_on_error=False)
            for key, facts in zip(some, zip(*(iter(answers),) * 4, strict=True), strict=True):
                ttl, kind, length, size = facts
                for fact in (ttl, kind, size):
                    if isinstance(fact, Exception):
                        raise fact
                reason = _reason(rule, ttl, kind, length)
                if reason is not None:
                    found.append(Suspect(key, reason, size or 0))
        return found

    def dump(self, rule: Rule, suspects: Sequence[Suspect]) -> list[Record]:
        found = []
        for some in batches(suspects, lambda suspect: suspect.bytes):
            pipe = self.client.pipeline(transaction=True)
            for suspect in some:
                pipe.execute_command(*self._expiry_of(suspect.key))
                pipe.type(suspect.key)
                pipe.strlen(suspect.key)
                pipe.dump(suspect.key)
                if rule.declared.reads_values:
                    pipe.get(suspect.key)
            pipe.time()
            *answers, (seconds, micros) = self.pace.call(pipe.execute, raise_on_error=False)
            now_ms = seconds * 1000 + micros // 1000
            per_key = len(answers) // len(some)
            rows = zip(*(iter(answers),) * per_key, strict=True)
            for suspect, (expiry, kind, length, dump, *value) in zip(some, rows, strict=True):
                reason = _reason(rule, expiry, kind, length)
                if reason == TO_BE_READ and _value_digest(value[0]) != suspect.digest:
                    continue
                if reason in (None, TOO_LONG) or not isinstance(dump, bytes):
                    continue
                found.append(Record(suspect.key, self._as_expiry(expiry, now_ms), dump))
        return found

    def unlink(self, records: Sequence[Record]) -> bytes:
        answers = bytearray()
        for some in batches(records, lambda record: len(record.dump)):
            removed = self._unlink(some)
            # One key that changes spoils the transaction of all: then each has its own.
            answers += removed or b"".join(
                self._unlink([record]) or bytes([CHANGED]) for record in some
            )
        return bytes(answers)

    def compare(self, records: Sequence[Record], scratch: bytes | None) -> bytes:
        answers = bytearray()
        for some in batches(records, lambda record: len(record.dump)):
            standing = {found.key: found.dump for found in self.present([r.key for r in some])}
            for record in some:
                dump = standing.get(record.key)
                if dump is None:
                    answers.append(MISSING)
                elif dump == record.dump or (scratch and self._has_same_members(record, scratch)):
                    answers.append(SAME)
                else:
                    answers.append(OTHER)
        return bytes(answers)

    def restore(self, records: Sequence[Record], stands: Sequence[str]) -> bytes:
        return bytes(
            self._restore(record, standing)
            for record, standing in zip(records, stands, strict=True)
        )

    def _has_same_members(self, record: Record, scratch: bytes) -> bool:
        """See ``compare.lua``: a set or hash may be equal where its dump is not."""
        kind = self.client.type(record.key)
        if kind not in (b"set", b"hash"):
            return False
        pipe = self.client.pipeline(transaction=True)
        pipe.restore(scratch, 0, record.dump, replace=True)
        for key in (record.key, scratch):
            pipe.smembers(key) if kind == b"set" else pipe.hgetall(key)
        pipe.unlink(scratch)
        loaded, one, other, _ = self.pace.call(pipe.execute, raise_on_error=False)
        is_failed = any(isinstance(answer, Exception) for answer in (loaded, one, other))
        return not is_failed and bool(one == other)

    def _unlink(self, records: Sequence[Record]) -> bytes | None:
        """None where a key changed while we looked."""
        with self.client.pipeline() as pipe:
            pipe.watch(*(record.key for record in records))
            standing = {found.key: found for found in self.present([r.key for r in records])}
            answers = bytes(_fate(record, standing.get(record.key)) for record in records)
            doomed = [
                record.key
                for record, answer in zip(records, answers, strict=True)
                if answer == REMOVED
            ]
            if not doomed:
                return answers
            pipe.multi()
            pipe.unlink(*doomed)
            try:
                self.pace.call(pipe.execute)
            except exceptions.WatchError:
                return None
        return answers

    def _restore(self, record: Record, standing: str) -> int:
        with self.client.pipeline() as pipe:
            pipe.watch(record.key)
            dump = pipe.dump(record.key)
            if dump is not None and (standing == UNCLAIMED or digest(dump) != standing):
                return TAKEN_BY_OTHERS
            pipe.multi()
            pipe.restore(
                record.key, max(record.expires_ms, 0), record.dump, replace=True, absttl=True
            )
            try:
                self.pace.call(pipe.execute)
            except exceptions.WatchError:
                return TAKEN_BY_OTHERS
        return RESTORED


def _reason(rule: Rule, ttl: Any, kind: Any, length: Any) -> bytes | None:
    """What ``judge`` in ``lua/prelude.lua`` says; an answer may be an error instead."""
    said = rule.declared
    if kind == b"none":
        return None
    if said.no_ttl and ttl == NO_EXPIRY:
        return NO_TTL
    if said.kind is None:
        return None
    if kind != said.kind.encode():
        return OTHER_TYPE
    if said.kind != "string" or not isinstance(length, int):
        return None
    longest = said.longest if said.longest is not None else length
    if not (said.shortest or 0) <= length <= longest:
        return OTHER_LENGTH
    if not said.reads_values:
        return None
    return TOO_LONG if length > rule.longest_read else TO_BE_READ


def _fate(record: Record, standing: Record | None) -> int:
    if standing is None:
        return GONE
    was, now = record.expires_ms, standing.expires_ms
    same_expiry = was == now or (min(was, now) > 0 and abs(was - now) <= EXPIRY_SLACK_MS)
    return REMOVED if same_expiry and standing.dump == record.dump else CHANGED


def _value_digest(value: Any) -> str:
    return digest(value) if isinstance(value, bytes) else UNCLAIMED

"""The keys of one server as a flush and its undo work on them: look, dump, remove, restore.

Where the server runs scripts, each step judges and acts at once on its side, and only what is
corrupted crosses the wire. ``transactions`` does the same with WATCH and MULTI where it does not.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha1
from importlib.resources import files
from typing import Any, NamedTuple, TypeVar

from redis import exceptions

from recovery.components.redis import spared
from recovery.components.redis.archive import Record, unpack
from recovery.components.redis.corruption import KeyPattern
from recovery.components.redis.pace import Pace

T = TypeVar("T")

KEYS_PER_CALL = 100
BYTES_PER_CALL = 256 * 1024
"""What one call may carry, so that no other client waits for long; one larger value goes alone."""

REMOVED, CHANGED, GONE = ord("1"), ord("0"), ord("-")
"""Answers to an unlinking."""

SAME, OTHER, MISSING = ord("="), ord("!"), ord("-")
"""Answers to a comparison."""

RESTORED, TAKEN_BY_OTHERS = ord("1"), ord("!")
"""Answers to a restoring."""

EXPIRY_SLACK_MS = 20
"""By how much an expiry may differ on servers before 7.0, which only know what is left of it."""

UNCLAIMED = "-" * 40
"""Stands for the digest of nothing."""

_SUSPECT = struct.Struct(">IIc")


class Suspect(NamedTuple):
    """A key that may be corrupted. ``reason``: see ``judge`` in ``lua/prelude.lua``.

    ``bytes`` in the server's memory; ``digest`` of the value that was read and judged.
    """

    key: bytes
    reason: bytes
    bytes: int
    digest: str = UNCLAIMED


NO_TTL, OTHER_TYPE, OTHER_LENGTH, TO_BE_READ, TOO_LONG = b"t", b"k", b"l", b"v", b"u"


class Page(NamedTuple):
    """One step of a scan. ``cursor`` 0 ends it; ``seen``: keys of the pattern looked at.

    ``records`` are corrupted, for ``reasons``, a byte each, and dumped in the same instant.
    """

    cursor: int
    seen: int
    suspects: list[Suspect]
    records: Sequence[Record] = ()
    reasons: bytes = b""


@dataclass(frozen=True)
class Rule:
    """A keyspace's declaration, and the longest value that is read to judge it, in bytes."""

    declared: KeyPattern
    longest_read: int

    @cached_property
    def argument(self) -> str:
        """As ``rule_of`` in ``lua/prelude.lua`` reads it."""
        said = self.declared
        bounds = (said.shortest, said.longest)
        shortest, longest = ("" if bound is None else str(bound) for bound in bounds)
        return (
            f"{int(said.no_ttl)},{said.kind or ''},{shortest},{longest},"
            f"{int(said.reads_values)},{self.longest_read}"
        )


class Keyspace(ABC):
    """One database of one server. ``client`` gives bytes; every call keeps to the pace."""

    def __init__(self, client: Any, pace: Pace, scan_count: int) -> None:
        self.client = client
        self.pace = pace
        self.scan_count = scan_count
        self.knows_expiry = _knows(client, "PEXPIRETIME", "recovery")

    @abstractmethod
    def survey(self, rule: Rule, cursor: int, *, dump: bool) -> Page:
        """Look at one page of the keyspace; ``dump`` where that can be done at once."""

    @abstractmethod
    def judge(self, rule: Rule, keys: Sequence[bytes]) -> list[Suspect]:
        """Look at these keys."""

    @abstractmethod
    def dump(self, rule: Rule, suspects: Sequence[Suspect]) -> list[Record]:
        """Those that are corrupted at that very moment, as they are then."""

    @abstractmethod
    def unlink(self, records: Sequence[Record]) -> bytes:
        """Remove what is still as it was dumped; ``REMOVED``, ``CHANGED`` or ``GONE`` a record."""

    @abstractmethod
    def compare(self, records: Sequence[Record], scratch: bytes | None) -> bytes:
        """``SAME``, ``OTHER`` or ``MISSING`` a record; ``scratch`` names a key that is free."""

    @abstractmethod
    def restore(self, records: Sequence[Record], stands: Sequence[str]) -> bytes:
        """``RESTORED`` or ``TAKEN_BY_OTHERS`` a record.

        ``stands``: the digest of the dump that may be replaced, or ``UNCLAIMED``.
        """

    def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """What strings hold; None for whatever is none by now."""
        found: list[bytes | None] = self.pace.call(self.client.mget, keys)
        return found

    def present(self, keys: Sequence[bytes]) -> list[Record]:
        """The keys that exist, as they are now."""
        pipe = self.client.pipeline(transaction=True)
        for key in keys:
            pipe.dump(key)
            pipe.execute_command(*self._expiry_of(key))
        pipe.time()
        *answers, (seconds, micros) = self.pace.call(pipe.execute)
        now_ms = seconds * 1000 + micros // 1000
        pairs = zip(keys, answers[::2], answers[1::2], strict=True)
        return [
            Record(key, self._as_expiry(expiry, now_ms), dump)
            for key, dump, expiry in pairs
            if dump is not None
        ]

    def first_elements(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The head of each list; None for whatever is none by now."""
        pipe = self.client.pipeline(transaction=False)
        for key in keys:
            pipe.lindex(key, 0)
        found = self.pace.call(pipe.execute, raise_on_error=False)
        for head in found:
            if isinstance(head, Exception) and "WRONGTYPE" not in str(head):
                raise head
        return [None if isinstance(head, Exception) else head for head in found]

    def lists_among(self, keys: Sequence[bytes]) -> list[bytes]:
        pipe = self.client.pipeline(transaction=False)
        for key in keys:
            pipe.type(key)
        kinds = self.pace.call(pipe.execute)
        return [key for key, kind in zip(keys, kinds, strict=True) if kind == b"list"]

    def queues(self) -> set[bytes]:
        """Every queue that a binding of kombu names."""
        found: set[bytes] = set()
        cursor = 0
        match = b"*" + spared.BINDINGS + b"*"
        while True:
            cursor, bindings = self.pace.call(
                self.client.scan, cursor, match=match, count=self.scan_count
            )
            for binding in bindings:
                if self.client.type(binding) != b"set":
                    continue
                found |= spared.queues(binding, self.pace.call(self.client.smembers, binding))
            if cursor == 0:
                return found

    def now_ms(self) -> int:
        seconds, micros = self.client.time()
        return int(seconds * 1000 + micros // 1000)

    def memory(self) -> tuple[int, int]:
        """Bytes used, and objects that are removed and not freed yet."""
        info = self.client.info("memory")
        return int(info["used_memory"]), int(info.get("lazyfree_pending_objects", 0))

    def _expiry_of(self, key: bytes) -> tuple[str, bytes]:
        return ("PEXPIRETIME" if self.knows_expiry else "PTTL", key)

    def _as_expiry(self, answer: int, now_ms: int) -> int:
        return answer if self.knows_expiry or answer < 0 else now_ms + answer


class ScriptedKeyspace(Keyspace):
    """Each call is one script that judges and acts in one step."""

    def __init__(self, client: Any, pace: Pace, scan_count: int) -> None:
        super().__init__(client, pace, scan_count)
        self._scripts = {
            name: client.register_script(_source(name))
            for name in ("survey", "dump", "unlink", "compare", "restore")
        }

    def survey(self, rule: Rule, cursor: int, *, dump: bool) -> Page:
        room = BYTES_PER_CALL if dump else 0
        arguments = (
            rule.argument,
            cursor,
            rule.declared.pattern,
            self.scan_count,
            room,
            int(self.knows_expiry),
        )
        following, seen, records, reasons, suspects = self._run("survey", (), arguments)
        return Page(int(following), seen, _suspects(suspects), unpack(records), reasons)

    def judge(self, rule: Rule, keys: Sequence[bytes]) -> list[Suspect]:
        arguments = (rule.argument, 0, "", 0, 0, 0)
        return [
            suspect
            for some in batches(keys)
            for suspect in _suspects(self._run("survey", some, arguments)[4])
        ]

    def dump(self, rule: Rule, suspects: Sequence[Suspect]) -> list[Record]:
        found = []
        for some in batches(suspects, lambda suspect: suspect.bytes):
            digests = "".join(suspect.digest for suspect in some)
            arguments = [rule.argument, int(self.knows_expiry), digests]
            found += unpack(self._run("dump", [suspect.key for suspect in some], arguments))
        return found

    def unlink(self, records: Sequence[Record]) -> bytes:
        answers = []
        for some in batches(records, _weight):
            arguments = [
                "".join(digest(record.dump) for record in some),
                _packed_expiries(some),
                int(self.knows_expiry),
                0 if self.knows_expiry else EXPIRY_SLACK_MS,
            ]
            answers.append(self._run("unlink", [record.key for record in some], arguments))
        return b"".join(answers)

    def compare(self, records: Sequence[Record], scratch: bytes | None) -> bytes:
        answers = []
        for some in batches(records, _weight):
            names = [record.key for record in some]
            if not self.pace.call(self.client.exists, *names):
                answers.append(bytes([MISSING]) * len(some))
                continue
            arguments = [int(scratch is not None), *(record.dump for record in some)]
            answers.append(self._run("compare", [scratch or b"-", *names], arguments))
        return b"".join(answers)

    def restore(self, records: Sequence[Record], stands: Sequence[str]) -> bytes:
        answers = []
        pairs = list(zip(records, stands, strict=True))
        for some in batches(pairs, lambda pair: _weight(pair[0])):
            arguments = [
                _packed_expiries([record for record, _ in some]),
                "".join(standing for _, standing in some),
                *(record.dump for record, _ in some),
            ]
            answers.append(self._run("restore", [record.key for record, _ in some], arguments))
        return b"".join(answers)

    def _run(self, script: str, keys: Sequence[bytes], arguments: Sequence[Any]) -> Any:
        return self.pace.call(self._scripts[script], keys=keys, args=arguments)


def open_keyspace(client: Any, pace: Pace, scan_count: int) -> Keyspace:
    """By scripts where the server and the user's rights allow it, else by transactions."""
    if may_run_scripts(client):
        return ScriptedKeyspace(client, pace, scan_count)
    from recovery.components.redis.transactions import WatchingKeyspace

    return WatchingKeyspace(client, pace, scan_count)


def may_run_scripts(client: Any) -> bool:
    try:
        return bool(client.register_script("return 1")() == 1)
    except exceptions.NoPermissionError:
        return False
    except exceptions.ResponseError as error:
        if "unknown command" in str(error).lower():
            return False
        raise


def may_restore(client: Any, key: bytes) -> bool:
    """Whether our rights and the server's commands allow it: asked with a TTL that is no number."""
    return _knows(client, "RESTORE", key, "no number", b"")


def digest(dump: bytes) -> str:
    return sha1(dump, usedforsecurity=False).hexdigest()


def batches(items: Sequence[T], weigh: Callable[[T], int] = lambda _: 0) -> Iterator[Sequence[T]]:
    """Cut into parts of at most ``KEYS_PER_CALL`` and, but for a single one, ``BYTES_PER_CALL``."""
    begin, weight = 0, 0
    for index, item in enumerate(items):
        weight += weigh(item)
        is_full = index - begin == KEYS_PER_CALL or weight > BYTES_PER_CALL
        if is_full and index > begin:
            yield items[begin:index]
            begin, weight = index, weigh(item)
    if begin < len(items):
        yield items[begin:]


def _weight(record: Record) -> int:
    return len(record.dump)


def _packed_expiries(records: Sequence[Record]) -> bytes:
    return struct.pack(f">{len(records)}q", *(record.expires_ms for record in records))


def _suspects(packed: bytes) -> list[Suspect]:
    found, at = [], 0
    while at < len(packed):
        key_bytes, size, reason = _SUSPECT.unpack_from(packed, at)
        at += _SUSPECT.size
        found.append(Suspect(packed[at : at + key_bytes], reason, size))
        at += key_bytes
    return found


def _knows(client: Any, *command: str | bytes) -> bool:
    """Whether the server takes a command, be it only to complain about its arguments."""
    try:
        client.execute_command(*command)
    except exceptions.NoPermissionError:
        return False
    except exceptions.ResponseError as error:
        return "unknown command" not in str(error).lower()
    return True


@cache
def _source(script: str) -> str:
    folder = files(__package__) / "lua"
    return "\n".join((folder / f"{name}.lua").read_text() for name in ("prelude", script))

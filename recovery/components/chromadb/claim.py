"""One repair of a server's collections at a time, whichever host or target it comes from.

The lease keeps apart the recoveries of one target, a lock those of one host. What they all see is
the server, so that a repair claims it there: by an empty collection, which a server makes for one
alone. It says whose it is and until when it counts, by the server's own clock. Whoever was killed
leaves it behind; it ends by itself, and at once for the same recovery and for the same host.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from recovery.components.chromadb import exclusive
from recovery.components.chromadb.editing import ChromaEditor, Listed, heard, is_there_already
from recovery.components.chromadb.neighbours import CLAIM
from recovery.components.chromadb.target import ChromaTarget
from recovery.deadline import Deadline
from recovery.errors import RemedyError, TargetBusy
from recovery.strategy import Journal

BACK_SECONDS = 120.0
"""What going back and clearing up may take beyond the time of a remedy."""
RELEASE_SECONDS = 10.0
PAUSE = 0.5


@contextmanager
def held(
    target: ChromaTarget, editor: ChromaEditor, journal: Journal, patience: float
) -> Iterator[None]:
    """Claim the server's database; not in a rehearsal. ``exclusive.alone_on_server`` comes first.

    Raises ``TargetBusy`` where another repair has it for ``patience`` seconds.
    """
    if journal.dry_run:
        yield
        return
    identity = _Claimant(target, editor, journal).take(patience)
    try:
        yield
    finally:
        _release(target, identity, journal)


@dataclass(slots=True)
class _Claimant:
    target: ChromaTarget
    editor: ChromaEditor
    journal: Journal

    def take(self, patience: float) -> str:
        within = Deadline(patience)
        home = exclusive.home(self.target)
        while True:
            try:
                return self._make(home)
            except RemedyError as error:
                if not is_there_already(error):
                    raise
            found = self.editor.find(CLAIM)
            if found is None:
                continue
            if self._is_over(found, home) and self._clear(found):
                continue
            if within.left() <= 0:
                raise TargetBusy(self._by_whom(found))
            time.sleep(min(PAUSE, self.journal.remaining()))

    def _make(self, home: str) -> str:
        until = self._now() + self.journal.remaining() + BACK_SECONDS
        said = {"recovery": self.journal.recovery_id, "home": home, "until": int(until)}
        return str(self.editor.create(CLAIM, {"metadata": said})["id"])

    def _now(self) -> float:
        """Epoch seconds of the server: the clocks of two hosts may differ."""
        with heard():
            return self.editor.heartbeat() / 1e9

    def _is_over(self, found: Listed, home: str) -> bool:
        said = _said(found)
        until = said.get("until")
        return (
            said.get("recovery") == self.journal.recovery_id
            # This host's lock is ours by now: whoever claimed it from here is gone.
            or said.get("home") == home
            or not isinstance(until, int)
            or until < self._now()
        )

    def _clear(self, found: Listed) -> bool:
        try:
            _remove(self.editor, found["id"])
        except RemedyError:
            # Another did it at this moment.
            return False
        whose = str(_said(found).get("recovery"))
        self.journal.note("the claim of a repair that is over was cleared", recovery=whose)
        return True

    def _by_whom(self, found: Listed) -> str:
        said = _said(found)
        until = said.get("until")
        left = max(int(until - self._now()), 0) if isinstance(until, int) else 0
        return (
            f"recovery {said.get('recovery')} of another host or target is at work on this server,"
            f" for {left} s more at most"
        )


def _said(found: Listed) -> dict[str, Any]:
    return found.get("metadata") or {}


def _remove(editor: ChromaEditor, identity: str) -> None:
    """Delete by its id, which the API cannot: its name may be another one's in the next moment."""
    over = f"{CLAIM}.{identity}"
    editor.rename(identity, over)
    editor.drop(over, identity)


def _release(target: ChromaTarget, identity: str, journal: Journal) -> None:
    try:
        with ChromaEditor.of(target, RELEASE_SECONDS) as editor:
            _remove(editor, identity)
    except RemedyError as error:
        journal.note("the claim on the server ends by itself", why=error.message)

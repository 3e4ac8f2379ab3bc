"""New collections in the place of old ones on one server: made, filled and proven, then exchanged.

All are made before the first name changes, so that what fails on the way has only cost time. What
goes wrong afterwards gives every name back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from recovery.components.chromadb import (
    answers,
    claim,
    exclusive,
    sampling,
    served_swap,
    starting,
)
from recovery.components.chromadb.api import ServedCollection, Unanswered
from recovery.components.chromadb.editing import NUMBER_BYTES, ChromaEditor, Listed, Records, heard
from recovery.components.chromadb.findings import Budget, Examined
from recovery.components.chromadb.neighbours import beside
from recovery.components.chromadb.served_swap import ServedSwap
from recovery.components.chromadb.swap import Place
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import RemedyError, StillUnhealthy, TargetUnreachable
from recovery.strategy import Journal, Kept

BUSY_SECONDS = 10.0
"""How long another repair or snapshot on this host may hold up one of these."""
LOOKS = 2
LOOK_SECONDS = 10.0
"""How long one collection may be looked at, to see whether it is damaged."""
DIED_SECONDS = 15.0
"""How long a server that died of being looked at is waited for."""
BACK_SECONDS = 60.0
"""What going back may take, whatever time is left."""
VERIFY_SECONDS = 60.0
REQUEST_BYTES = 16 * 1024 * 1024
"""What one request may carry: a server refuses 40 MB."""
RELOAD = "reload_collections"
SAMPLE = 64
CLOSE = 1e-3


@dataclass(slots=True)
class Replacement:
    """One recovery's exchanges of collections; ``editor`` may be replaced by the caller."""

    target: ChromaTarget
    editor: ChromaEditor
    journal: Journal
    ready: list[ServedSwap] = field(default_factory=list)
    done: list[ServedSwap] = field(default_factory=list)

    def resume(self) -> None:
        """What was cut off is brought to its end, and what this recovery has exchanged is known."""
        served_swap.settle(self.editor, self.journal)
        for swap in served_swap.known(self.journal.keep()):
            if swap.place(self.editor) is Place.NEW:
                self.done.append(swap)
        if self.done:
            names = ", ".join(swap.name for swap in self.done)
            self.journal.note("taken up again, exchanged already", collections=names)

    def is_done(self, name: str) -> bool:
        return any(swap.name == name for swap in self.done)

    def make(self, name: str, like: Listed) -> Listed:
        """An empty collection beside the one of that name, written down before there is one."""
        new = beside(name, "new", self.journal.recovery_id)
        kept = self.journal.keep()
        made = {*kept.facts.get(served_swap.MADE, ()), name}
        kept.store(
            "collections being made anew", lies_beside=None, **{served_swap.MADE: sorted(made)}
        )
        self._drop(self.editor, name)
        return self.editor.create(new, like)

    def has(self, name: str, new: Listed) -> None:
        """The new one was filled and proven, and waits for the name."""
        swap = ServedSwap.begin(self.editor, name, new["id"], self.journal.recovery_id)
        self.ready.append(swap)

    def exchange(self) -> None:
        """Every name goes to its new collection, and all of them answer; or none does."""
        try:
            for swap in self.ready:
                served_swap.perform(self.editor, swap, self.journal)
                self.done.append(swap)
            for swap in self.done:
                prove(self.target, self.editor, swap.name)
        except BaseException:
            self._back()
            raise

    def give_up(self) -> None:
        """Delete what was made and is not exchanged; in time of its own."""
        kept = self.journal.keep()
        try:
            with ChromaEditor.of(self.target, BACK_SECONDS) as editor:
                for name in kept.facts.get(served_swap.MADE, ()):
                    self._drop(editor, name)
        except RemedyError as error:
            self.journal.note("what was made is deleted with what is kept", why=error.message)
            return
        kept.store(served_swap.summary(served_swap.known(kept)), **{served_swap.MADE: []})

    def _back(self) -> None:
        begun = [*self.ready, *(one for one in self.done if one not in self.ready)]
        try:
            with ChromaEditor.of(self.target, BACK_SECONDS) as editor:
                for swap in begun:
                    swap.back(editor, overwrite=True)
        except RemedyError as error:
            self.journal.note("not all is as it was before", why=error.message)
            return
        self.done.clear()
        self.journal.note("every name is the old collection's again")

    def _drop(self, editor: ChromaEditor, name: str) -> None:
        new = beside(name, "new", self.journal.recovery_id)
        found = editor.find(new)
        if found is not None:
            editor.drop(new, found["id"])


def look(target: ChromaTarget, editor: ChromaEditor, listed: Listed, seconds: float) -> Examined:
    """Whether a collection gives back what it holds. Raises what the server's silence means."""
    with heard():
        return sampling.examine(
            ServedCollection(editor, editor.understood(answers.one, listed)),
            Budget(seconds),
            at_least=target.collections.get(listed["name"], 0),
            latency_ms=float("inf"),
        )


def survives(
    target: ChromaTarget, editor: ChromaEditor, listed: Listed, journal: Journal
) -> str | Examined:
    """What looking at it shows, or why it is known to end its server: by doing so twice.

    The server runs again afterwards. Raises ``TargetUnreachable`` where it stays away, or is slow.
    """
    died = ""
    for _ in range(LOOKS):
        try:
            return look(target, editor, listed, min(LOOK_SECONDS, journal.remaining()))
        except TargetUnreachable as error:
            died = f"{listed['name']}: a query of it ended the server: {error.message}"
            outlive(target, journal, error)
    return died


def outlive(target: ChromaTarget, journal: Journal, error: TargetUnreachable) -> None:
    """Wait for a server that died, or start it. Raises the error where it did not die."""
    cause = error.__cause__
    if not isinstance(cause, Unanswered) or cause.finding.failure_type != "connection_error":
        raise error
    journal.note("the server ended", why=error.message)
    starting.await_answer(target, journal, DIED_SECONDS)


def prove(target: ChromaTarget, editor: ChromaEditor, name: str) -> None:
    """Raises ``StillUnhealthy``."""
    listed = editor.find(name)
    if listed is None:
        raise StillUnhealthy(f"{name} is not there")
    found = look(target, editor, listed, VERIFY_SECONDS).finding
    if found is not None:
        raise StillUnhealthy(f"the new collection is not well: {found.summary}")


class Sample:
    """A few of the vectors that were given, to be compared with those that come back."""

    def __init__(self) -> None:
        self._given: dict[str, list[float]] = {}

    def take(self, page: Records) -> None:
        """The first of each page, as long as there is room; and what was taken before, anew."""
        for number, (name, vector) in enumerate(zip(page["ids"], page["embeddings"], strict=True)):
            if name in self._given or (number == 0 and len(self._given) < SAMPLE):
                self._given[name] = list(vector)

    def forget(self, ids: Iterable[str]) -> None:
        for name in ids:
            self._given.pop(name, None)

    def compare(self, editor: ChromaEditor, listed: Listed) -> None:
        """Raises ``StillUnhealthy``."""
        got = editor.read_ids(listed["id"], list(self._given), ("embeddings",))
        back = dict(zip(got["ids"], got["embeddings"], strict=True))
        for name, given in self._given.items():
            if not _is_near(back.get(name), given):
                raise StillUnhealthy(f"the new collection has another vector of {name[:80]!r}")


def portions(page: Records) -> Iterator[Records]:
    """A page in parts that a server takes."""
    rows = zip(*page.values(), strict=True)
    size, part = 0, list[tuple[Any, ...]]()
    for row in rows:
        weight = _weight(page, row)
        if part and size + weight > REQUEST_BYTES:
            yield _columns(page, part)
            size, part = 0, []
        part.append(row)
        size += weight
    if part:
        yield _columns(page, part)


def undo(target: ChromaTarget, journal: Journal, kept: Kept) -> None:
    """Every collection from before has its name again; what had it meanwhile is beside it.

    Raises ``WouldOverwrite`` where that one was written to since, ``NotKept`` where the one from
    before is gone.
    """
    patience = min(BUSY_SECONDS, journal.remaining())
    with (
        exclusive.alone_on_server(target, patience),
        ChromaEditor.of(target, journal.remaining()) as editor,
        claim.held(target, editor, journal, patience),
    ):
        if not journal.dry_run:
            served_swap.settle(editor, journal)
        served_swap.undo(editor, journal, kept)
    journal.tell_applications("applications asked to get their collections anew", RELOAD)


def discard(target: ChromaTarget, kept: Kept) -> None:
    """Delete what was put aside. Raises what the server's silence means; then it is tried later."""
    if target.server is None or not served_swap.is_kept(kept):
        return
    with ChromaEditor.of(target, BACK_SECONDS) as editor:
        served_swap.discard(editor, kept)


def _columns(page: Records, rows: list[tuple[Any, ...]]) -> Records:
    return {name: list(column) for name, column in zip(page, zip(*rows, strict=True), strict=True)}


def _weight(page: Records, row: tuple[Any, ...]) -> int:
    said = dict(zip(page, row, strict=True))
    vector = said.pop("embeddings", None) or ()
    return len(vector) * NUMBER_BYTES + len(json.dumps(said))


def _is_near(one: list[float] | None, other: list[float]) -> bool:
    if one is None or len(one) != len(other):
        return False
    gap = sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5
    length = sum(b * b for b in other) ** 0.5
    return bool(gap <= CLOSE * max(length, CLOSE))

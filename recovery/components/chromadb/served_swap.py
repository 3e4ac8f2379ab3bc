"""One collection in the place of another on a server that is reached by its API alone, and back.

Nothing is copied and nothing deleted: two collections change names, by two renames. Between them
the name is nobody's. What lies beside it then says by its own name where the exchange stood, so
that whoever comes after a killed process goes on or goes back, on this host with the note in the
recovery's folder, on any other by the names alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Self

from recovery.components.chromadb.editing import ChromaEditor, Records
from recovery.components.chromadb.neighbours import beside, cut_off, is_one
from recovery.components.chromadb.swap import Place
from recovery.errors import NotKept, OwnerChanged, RemedyError, WouldOverwrite
from recovery.strategy import Journal, Kept

FACT = "served_swaps"
MADE = "served_made"
"""The names beside which a recovery made a collection, written down before it did."""
COLUMNS = ("documents", "metadatas", "uris")
"""What a content is known by. Not the vectors: an index may round those that it normalized."""
PAGE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """How many records a collection holds, and a sum over them in which no order counts."""

    records: int
    digest: str

    @classmethod
    def of(cls, pages: Iterable[Records]) -> Self:
        records = total = 0
        for page in pages:
            records += len(page["ids"])
            total += sum(_digests(page))
        return cls(records=records, digest=f"{total % 2**256:064x}")

    @classmethod
    def read(cls, editor: ChromaEditor, identity: str) -> Self:
        return cls.of(editor.pages(identity, PAGE, COLUMNS))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedSwap:
    """``old`` and ``new`` are ids of collections, None where the name was, or is to be, nobody's.

    ``content`` is what the new one held when it was about to get the name; None where that cannot
    be read, as of a damaged one that an undo brings back.
    """

    recovery_id: str
    name: str
    old: str | None
    new: str | None
    content: Content | None

    @classmethod
    def begin(cls, editor: ChromaEditor, name: str, new: str, recovery_id: str) -> Self:
        """``new`` is the id of a verified collection, named ``beside(name, "new", …)``."""
        owner = editor.find(name)
        return cls(
            recovery_id=recovery_id,
            name=name,
            old=owner["id"] if owner else None,
            new=new,
            content=Content.read(editor, new),
        )

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        content = plain["content"]
        return cls(**{**plain, "content": Content(**content) if content else None})

    def beside(self, kind: str) -> str:
        return beside(self.name, kind, self.recovery_id)

    def place(self, editor: ChromaEditor) -> Place:
        """Raises ``OwnerChanged`` where the name belongs to a third."""
        owner = editor.find(self.name)
        found = owner["id"] if owner else None
        if found == self.new:
            return Place.NEW
        if found == self.old:
            return Place.OLD
        if found is None:
            return Place.NEITHER
        raise OwnerChanged(
            f"{self.name} is a third collection meanwhile; the one from before is"
            f" {self.beside('aside')}, the new one is {self.beside('new')}"
        )

    def forward(self, editor: ChromaEditor) -> None:
        """The new one has the name, the old one is aside; from wherever it stands."""
        self.clear_name(editor)
        place = self.place(editor)
        if place is Place.OLD and self.old is not None:
            editor.rename(self.old, self.beside("aside"))
        if place is not Place.NEW and self.new is not None:
            self._give_name(editor, self.new)

    def back(self, editor: ChromaEditor, *, overwrite: bool) -> None:
        """The old one has the name again; from wherever it stands.

        Raises ``WouldOverwrite`` where the new one was written to since, ``NotKept`` where the old
        one is gone.
        """
        self.clear_name(editor)
        place = self.place(editor)
        if place is Place.OLD:
            return
        if self.old is not None and not _is_there(editor, self.old, self.beside("aside")):
            raise NotKept(f"{self.beside('aside')} is not on the server any more")
        if place is Place.NEW and self.new is not None:
            self._refuse_newer(editor, overwrite=overwrite)
            editor.rename(self.new, self.beside("undone"))
        if self.old is not None:
            self._give_name(editor, self.old)

    def way_back(self, editor: ChromaEditor, recovery_id: str, *, overwrite: bool) -> Self | None:
        """The exchange that an undo of this one is; None where the old one has the name already.

        Raises as ``back`` does.
        """
        place = self.place(editor)
        if place is Place.OLD:
            return None
        if self.old is not None and _neighbour(editor, self.name, self.old) is None:
            raise NotKept(f"{self.beside('aside')} is not on the server any more")
        if place is Place.NEW:
            self._refuse_newer(editor, overwrite=overwrite)
        return replace(
            self,
            recovery_id=recovery_id,
            old=self.new if place is Place.NEW else None,
            new=self.old,
            content=None,
        )

    def make_ready(self, editor: ChromaEditor) -> None:
        """The new one has the name from which everybody sees that it is to get the name; where it
        cannot be renamed, nothing has changed."""
        if self.new is None or self.place(editor) is Place.NEW:
            return
        if _neighbour(editor, self.name, self.new) != self.beside("new"):
            editor.rename(self.new, self.beside("new"))

    def discard(self, editor: ChromaEditor) -> None:
        """Delete the one of the two that does not have the name, whatever it is called."""
        if self.old is not None:
            editor.drop(self.beside("aside"), self.old)
        if self.new is not None:
            for kind in ("undone", "new"):
                editor.drop(self.beside(kind), self.new)

    def _refuse_newer(self, editor: ChromaEditor, *, overwrite: bool) -> None:
        if overwrite or self.new is None or self.content is None:
            return
        now = Content.read(editor, self.new)
        if now != self.content:
            raise WouldOverwrite(
                f"{self.name} was written to since: it held {self.content.records} records and"
                f" holds {now.records}; with overwrite what came since is kept with it, aside"
            )

    def _give_name(self, editor: ChromaEditor, identity: str) -> None:
        try:
            editor.rename(identity, self.name)
        except RemedyError:
            self.clear_name(editor)
            editor.rename(identity, self.name)

    def clear_name(self, editor: ChromaEditor) -> None:
        """An application may make the collection anew in the moment in which it is nobody's."""
        owner = editor.find(self.name)
        if owner is None or owner["id"] in (self.old, self.new) or editor.count(owner["id"]):
            return
        editor.rename(owner["id"], self.beside("between"))


def known(kept: Kept) -> list[ServedSwap]:
    """The exchanges that a recovery wrote down."""
    return [ServedSwap.from_dict(plain) for plain in kept.facts.get(FACT, ())]


def is_kept(kept: Kept) -> bool:
    """Whether the recovery worked on a server's collections at all."""
    return FACT in kept.facts or MADE in kept.facts


def summary(swaps: list[ServedSwap]) -> str:
    """What is kept, in a line; nothing where nothing is."""
    return f"the collection from before of {_names(swaps)}"[:160] if swaps else ""


def _undone_summary(swaps: list[ServedSwap]) -> str:
    return f"collections from before the undo: {_names(swaps)}"[:160]


def _names(swaps: list[ServedSwap]) -> str:
    return ", ".join(sorted(one.name for one in swaps))


def perform(editor: ChromaEditor, swap: ServedSwap, journal: Journal) -> None:
    """Write down what is to be exchanged, and do it. What came of it is the caller's to prove."""
    _write_down(journal.keep(), swap, summary)
    journal.change(
        f"{swap.name}: new collection in place of the old one",
        lambda: swap.forward(editor),
        records=swap.content.records if swap.content else None,
        aside=swap.beside("aside") if swap.old else None,
    )


def _write_down(kept: Kept, swap: ServedSwap, said: Callable[[list[ServedSwap]], str]) -> None:
    swaps = [one for one in known(kept) if one.name != swap.name] + [swap]
    kept.store(said(swaps), lies_beside=None, **{FACT: [asdict(one) for one in swaps]})


def is_unsettled(editor: ChromaEditor) -> bool:
    return next(cut_off({found["name"] for found in editor.all()}), None) is not None


def settle(editor: ChromaEditor, journal: Journal) -> int:
    """Bring to an end what a killed process left between two renames, whoever's it was: how many.

    Only a name that is nobody's, with both collections beside it, is such a moment.
    """
    ids = {found["name"]: str(found["id"]) for found in editor.all()}
    found = list(cut_off(ids))
    for cut in found:
        journal.change(
            f"{cut.name}: an exchange that was cut off is "
            + ("finished" if cut.is_forward else "undone"),
            lambda cut=cut: editor.rename(ids[cut.owner], cut.name),  # type: ignore[misc]
        )
    return len(found)


def undo(editor: ChromaEditor, journal: Journal, kept: Kept) -> None:
    """Every collection that the recovery exchanged has its name again; see ``ServedSwap.back``.

    It is an exchange as well: what had the name meanwhile is kept under the undo's own id.
    """
    for way in list(_ways_back(editor, journal, kept)):
        journal.change(
            f"{way.name}: the collection from before is back",
            partial(_go_back, editor, journal, way),
            aside=way.beside("aside") if way.old else None,
        )


def _ways_back(editor: ChromaEditor, journal: Journal, kept: Kept) -> Iterator[ServedSwap]:
    """Those that this undo had begun when it was killed are gone on with."""
    begun = {} if journal.dry_run else {one.name: one for one in known(journal.keep())}
    for swap in known(kept):
        way = begun.get(swap.name)
        if way is None:
            if not journal.dry_run:
                swap.clear_name(editor)
            way = swap.way_back(editor, journal.recovery_id, overwrite=journal.overwrite)
        if way is not None:
            yield way


def _go_back(editor: ChromaEditor, journal: Journal, way: ServedSwap) -> None:
    _write_down(journal.keep(), way, _undone_summary)
    try:
        way.make_ready(editor)
        way.forward(editor)
    except RemedyError:
        with suppress(RemedyError):
            way.back(editor, overwrite=True)
        raise
    if way.new is not None and way.content is None:
        # It may be as damaged as it was; what can be read of it, an undo of this undo compares.
        with suppress(RemedyError):
            content = Content.read(editor, way.new)
            _write_down(journal.keep(), replace(way, content=content), _undone_summary)


def discard(editor: ChromaEditor, kept: Kept) -> None:
    """Delete what the recovery put aside or left half made, once its retention has ended."""
    for swap in known(kept):
        swap.discard(editor)
    for name in kept.facts.get(MADE, ()):
        found = editor.find(beside(name, "new", kept.recovery_id))
        if found is not None:
            editor.drop(found["name"], found["id"])


def _neighbour(editor: ChromaEditor, name: str, identity: str) -> str | None:
    """What a collection is called that lies beside that name."""
    found = next((one["name"] for one in editor.all() if one["id"] == identity), "")
    return found if found.startswith(f"{name}.") and is_one(found) else None


def _is_there(editor: ChromaEditor, identity: str, name: str) -> bool:
    found = editor.find(name)
    return found is not None and found["id"] == identity


def _digests(page: Records) -> Iterator[int]:
    for record in zip(page["ids"], *(page[column] for column in COLUMNS), strict=True):
        plain = json.dumps(record, sort_keys=True).encode()
        yield int.from_bytes(hashlib.sha256(plain).digest())

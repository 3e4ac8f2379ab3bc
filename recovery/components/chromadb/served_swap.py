"""One collection in the place of another on a server that is reached by its API alone, and back.

Nothing is copied and nothing deleted: two collections change names, by two renames. Between them
the name is nobody's. What lies beside it then says by its own name where the exchange stood, so
that whoever comes after a killed process goes on or goes back, on this host with the note in the
recovery's folder, on any other by the names alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Self

from recovery.components.chromadb.editing import ChromaEditor, Records
from recovery.components.chromadb.neighbours import beside, cut_off
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
    """``old`` and ``new`` are ids of collections; ``old`` is None where the name was nobody's.

    ``content`` is what the new one held when it was about to get the name.
    """

    recovery_id: str
    name: str
    old: str | None
    new: str
    content: Content

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
        return cls(**{**plain, "content": Content(**plain["content"])})

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
        self._clear_name(editor)
        place = self.place(editor)
        if place is Place.OLD and self.old is not None:
            editor.rename(self.old, self.beside("aside"))
        if place is not Place.NEW:
            self._give_name(editor, self.new)

    def back(self, editor: ChromaEditor, *, overwrite: bool) -> None:
        """The old one has the name again; from wherever it stands.

        Raises ``WouldOverwrite`` where the new one was written to since, ``NotKept`` where the old
        one is gone.
        """
        self._clear_name(editor)
        place = self.place(editor)
        if place is Place.OLD:
            return
        if self.old is not None and not _is_there(editor, self.old, self.beside("aside")):
            raise NotKept(f"{self.beside('aside')} is not on the server any more")
        if place is Place.NEW:
            self._refuse_newer(editor, overwrite=overwrite)
            editor.rename(self.new, self.beside("undone"))
        if self.old is not None:
            self._give_name(editor, self.old)

    def discard(self, editor: ChromaEditor) -> None:
        """Delete the one of the two that does not have the name, whatever it is called."""
        if self.old is not None:
            editor.drop(self.beside("aside"), self.old)
        for kind in ("undone", "new"):
            editor.drop(self.beside(kind), self.new)

    def _refuse_newer(self, editor: ChromaEditor, *, overwrite: bool) -> None:
        now = Content.read(editor, self.new)
        if now != self.content and not overwrite:
            raise WouldOverwrite(
                f"{self.name} was written to since: it held {self.content.records} records and"
                f" holds {now.records}; what came since would be in {self.beside('undone')}"
            )

    def _give_name(self, editor: ChromaEditor, identity: str) -> None:
        try:
            editor.rename(identity, self.name)
        except RemedyError:
            self._clear_name(editor)
            editor.rename(identity, self.name)

    def _clear_name(self, editor: ChromaEditor) -> None:
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
    names = ", ".join(sorted(one.name for one in swaps))
    return f"the collection from before of {names}"[:160] if names else ""


def perform(editor: ChromaEditor, swap: ServedSwap, journal: Journal) -> None:
    """Write down what is to be exchanged, and do it. What came of it is the caller's to prove."""
    kept = journal.keep()
    swaps = [one for one in known(kept) if one.name != swap.name] + [swap]
    kept.store(summary(swaps), **{FACT: [asdict(one) for one in swaps]})
    journal.change(
        f"{swap.name}: new collection in place of the old one",
        lambda: swap.forward(editor),
        records=swap.content.records,
        aside=swap.beside("aside") if swap.old else None,
    )


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
    """Every collection that the recovery exchanged has its name again; see ``ServedSwap.back``."""
    for swap in known(kept):
        journal.change(
            f"{swap.name}: the collection from before is back",
            lambda swap=swap: swap.back(editor, overwrite=journal.overwrite),  # type: ignore[misc]
        )


def discard(editor: ChromaEditor, kept: Kept) -> None:
    """Delete what the recovery put aside or left half made, once its retention has ended."""
    for swap in known(kept):
        swap.discard(editor)
    for name in kept.facts.get(MADE, ()):
        found = editor.find(beside(name, "new", kept.recovery_id))
        if found is not None:
            editor.drop(found["name"], found["id"])


def _is_there(editor: ChromaEditor, identity: str, name: str) -> bool:
    found = editor.find(name)
    return found is not None and found["id"] == identity


def _digests(page: Records) -> Iterator[int]:
    for record in zip(page["ids"], *(page[column] for column in COLUMNS), strict=True):
        plain = json.dumps(record, sort_keys=True).encode()
        yield int.from_bytes(hashlib.sha256(plain).digest())

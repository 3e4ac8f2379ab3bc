"""Rebuilding through a server's API alone, where its directory is out of reach.

There an index is rebuilt with its collection: a new one gets all that the server still hands out,
and then the name.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from recovery.components.chromadb import claim, exclusive, neighbours, starting, view
from recovery.components.chromadb.editing import ChromaEditor, Listed
from recovery.components.chromadb.rebuilding.copying import Copy
from recovery.components.chromadb.rebuilding.ledger import Ledger
from recovery.components.chromadb.rebuilding.taking_over import INDEX_FAILURES
from recovery.components.chromadb.served_replacement import (
    BUSY_SECONDS,
    RELOAD,
    Replacement,
    outlive,
    prove,
    survives,
)
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import (
    OwnerChanged,
    RecordsUnreadable,
    RemedyError,
    TargetUnreachable,
    VectorsLost,
)
from recovery.strategy import Journal

if TYPE_CHECKING:
    from recovery.components.chromadb.index_rebuild import IndexRebuild


def rebuild(target: ChromaTarget, parameters: IndexRebuild, journal: Journal) -> None:
    """Raises ``VectorsLost`` and ``RecordsUnreadable`` where only a snapshot can help,
    ``EmbeddingUnavailable``, ``TargetUnreachable``, ``StillUnhealthy`` where a copy is not what it
    should be."""
    patience = min(BUSY_SECONDS, journal.remaining())
    with exclusive.alone_on_server(target, patience), view.private_folder() as folder:
        starting.await_answer(target, journal)
        with (
            ChromaEditor.of(target, journal.remaining()) as editor,
            claim.held(target, editor, journal, patience),
        ):
            replacement = Replacement(target, editor, journal)
            _ServedRebuild(target, parameters, journal, replacement, folder).run()
    journal.tell_applications("applications asked to get their collections anew", RELOAD)


@dataclass(slots=True)
class _ServedRebuild:
    target: ChromaTarget
    parameters: IndexRebuild
    journal: Journal
    replacement: Replacement
    folder: Path
    _copies: list[Copy] = field(default_factory=list)
    _other: list[str] = field(default_factory=list)

    def run(self) -> None:
        if not self.journal.dry_run:
            self.replacement.resume()
        chosen = [one for one in self._chosen() if not self.replacement.is_done(one["name"])]
        if not chosen and not self.replacement.done:
            other = "; ".join(self._other[:3])
            raise RemedyError(
                "no index of the server's collections is damaged"
                + (f"; what is wrong is not for this remedy: {other}" if other else "")
            )
        if self.journal.dry_run:
            for one in chosen:
                self.journal.change(f"{one['name']}: copied into a new collection", lambda: None)
            return
        with ExitStack() as ledgers:
            self._replace(chosen, ledgers)

    def _replace(self, chosen: list[Listed], ledgers: ExitStack) -> None:
        try:
            for one in chosen:
                self._copy(one, ledgers)
            self.replacement.exchange()
        finally:
            self.replacement.give_up()
        for copy in self._copies:
            self._catch_up(copy)

    def _chosen(self) -> list[Listed]:
        editor = self.replacement.editor
        name = getattr(self.journal.scope, "collection", None)
        if name is not None:
            listed = editor.find(name)
            if listed is None and not self.replacement.is_done(name):
                raise RemedyError(f"there is no collection {name!r}")
            return [listed] if listed else []
        own = [one for one in editor.all() if not neighbours.is_one(one["name"])]
        return [one for one in own if self._is_damaged(one)]

    def _is_damaged(self, one: Listed) -> bool:
        problem = self._problem(one)
        if problem is not None:
            self.journal.note(f"{one['name']}: its index is to be built anew", problem=problem)
        return problem is not None

    def _problem(self, one: Listed) -> str | None:
        try:
            found = survives(self.target, self.replacement.editor, one, self.journal)
        except RecordsUnreadable as error:
            return error.message
        if isinstance(found, str):
            return found
        finding = found.finding
        if finding is not None and finding.failure_type not in INDEX_FAILURES:
            self._other.append(finding.summary)
            return None
        return finding.summary if finding else None

    def _copy(self, one: Listed, ledgers: ExitStack) -> None:
        from recovery.components.chromadb.index_rebuild import Told

        editor, name = self.replacement.editor, str(one["name"])
        place = self.folder / str(one["id"])
        place.mkdir()
        ledger = ledgers.enter_context(Ledger(place / "ledger.sqlite3"))
        new = self.replacement.make(name, one)
        told = Told(self.journal, name)
        copy = Copy(editor, one, new, self.parameters, self.journal, ledger, place, told)
        try:
            self.journal.change(f"{name}: copied into a new collection", copy.run)
        except TargetUnreachable as error:
            outlive(self.target, self.journal, error)
            raise VectorsLost(
                f"{name}: the server does not survive reading it; a snapshot is what can help",
                {"collection": name},
            ) from error
        prove(self.target, editor, new["name"])
        self._refuse_another(one)
        self.replacement.has(name, new)
        self._copies.append(copy)

    def _refuse_another(self, one: Listed) -> None:
        """What was copied is due the name of its original, and of no other."""
        owner = self.replacement.editor.find(one["name"])
        if owner is None or owner["id"] != one["id"]:
            raise OwnerChanged(
                f"{one['name']} was {'replaced' if owner else 'deleted'} while it was copied"
            )

    def _catch_up(self, copy: Copy) -> None:
        """What came between the last look and the exchange went into the old one."""
        try:
            late = copy.catch_up()
        except RemedyError as error:
            self.journal.note(f"{copy.name}: not compared once more", why=error.message)
            return
        if late:
            self.journal.note(f"{copy.name}: carried over what came in the last moment", late=late)

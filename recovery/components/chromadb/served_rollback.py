"""A rollback through the API alone: the collections of an export beside the damaged ones.

Only what is damaged or missing goes back. Each is made anew under a name of its own, filled, and
compared with what the snapshot holds, while the old one keeps its name; then they change names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from recovery.components.chromadb import claim, exclusive, starting, view
from recovery.components.chromadb.editing import (
    EVERYTHING,
    ChromaEditor,
    Listed,
    Records,
    heard,
)
from recovery.components.chromadb.served_replacement import (
    BUSY_SECONDS,
    RELOAD,
    Replacement,
    Sample,
    outlive,
    portions,
    prove,
    survives,
)
from recovery.components.chromadb.served_swap import Content
from recovery.components.chromadb.snapshots import archive, records
from recovery.components.chromadb.snapshots.catalogue import Catalogue, age, need_room
from recovery.components.chromadb.snapshots.manifest import Manifest, StoredCollection
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import (
    NoSnapshot,
    RemedyError,
    SnapshotDamaged,
    StillUnhealthy,
    TargetRefused,
    TargetUnreachable,
)
from recovery.strategy import Journal

if TYPE_CHECKING:
    from recovery.components.chromadb.snapshot_rollback import RollbackScope, SnapshotRollback

SALVAGE_PAGE = 200
"""An unreadable record costs its page: small ones lose less by it."""


@dataclass(slots=True)
class ServedRollback:
    """One run, or the rest of one that was killed."""

    target: ChromaTarget
    catalogue: Catalogue
    parameters: SnapshotRollback
    scope: RollbackScope
    journal: Journal
    _deadly: set[str] = field(default_factory=set)
    """Collections that end the server when they are so much as counted."""

    def run(self) -> None:
        """Raises ``NoSnapshot``, ``SnapshotDamaged`` where none can be used, ``RemedyError`` where
        nothing of it is damaged, and what making and exchanging raise."""
        patience = min(BUSY_SECONDS, self.journal.remaining())
        with exclusive.alone_on_server(self.target, patience), view.private_folder() as folder:
            candidates = self._candidates()
            starting.await_answer(self.target, self.journal)
            self._make_place()
            with (
                ChromaEditor.of(self.target, self.journal.remaining()) as editor,
                claim.held(self.target, editor, self.journal, patience),
            ):
                if self.journal.dry_run:
                    self._rehearse(editor, candidates[0])
                    return
                self._restore(Replacement(self.target, editor, self.journal), candidates, folder)
        self.journal.tell_applications("applications asked to get their collections anew", RELOAD)

    def _make_place(self) -> None:
        """A tenant or a database that the server lost: nothing could be made in it."""
        tenant, database = self.target.tenant, self.target.database
        with ChromaEditor.of(self.target, self.journal.remaining()) as editor:
            with heard():
                is_there = editor.has_database()
            if not is_there:
                self.journal.change(
                    f"database {database} of tenant {tenant} made anew",
                    lambda: editor.make_database(tenant, database),
                )

    def _restore(self, replacement: Replacement, candidates: list[Manifest], folder: Path) -> None:
        replacement.resume()
        chosen = self._unpack(candidates, folder)
        wanted = [
            one
            for one in self._wanted(replacement.editor, chosen)
            if not replacement.is_done(one.name)
        ]
        if not wanted and not replacement.done:
            raise RemedyError(
                f"nothing that snapshot {chosen.name} holds is damaged or missing; to go back with"
                " a collection all the same, name it in the context: collection"
            )
        before = self._count(replacement.editor, wanted)
        try:
            for one in wanted:
                self._make(replacement, one, folder)
            replacement.exchange()
        finally:
            replacement.give_up()
        self.journal.note(
            "rolled back",
            snapshot=chosen.name,
            collections=", ".join(swap.name for swap in replacement.done),
            records=sum(swap.content.records for swap in replacement.done if swap.content),
            records_before=before,
            seconds_back=_seconds_back(chosen),
        )

    def _candidates(self) -> list[Manifest]:
        name = self.scope.snapshot
        found = self.catalogue.snapshots() if name is None else [self.catalogue.find(name)]
        found = [one for one in found if one.is_export and self._is_ours(one)]
        if not found:
            raise NoSnapshot(
                f"{self.catalogue.directory} has no verified export of this server; a snapshot of a"
                f" directory needs the target's path{self._of_no_use()}",
                {"snapshots": []},
            )
        return found

    def _of_no_use(self) -> str:
        faults = [f"{name}: {why}" for name, why in sorted(self.catalogue.damaged().items())]
        return f"; of no use are {', '.join(faults[:3])}" if faults else ""

    def _is_ours(self, made: Manifest) -> bool:
        place = (self.target.tenant, self.target.database)
        return all((one.tenant, one.database) == place for one in made.collections)

    def _unpack(self, candidates: list[Manifest], folder: Path) -> Manifest:
        """The newest that is what was written."""
        for number, chosen in enumerate(candidates):
            into = folder / chosen.name
            try:
                self._unpack_one(chosen, into)
            except SnapshotDamaged as error:
                if number == len(candidates) - 1:
                    raise
                self.journal.note("passed over", why=error.message)
            else:
                return chosen
        raise AssertionError("unreachable")

    def _unpack_one(self, chosen: Manifest, into: Path) -> None:
        if not chosen.collections:
            raise SnapshotDamaged(f"snapshot {chosen.name} holds no collection")
        into.mkdir()
        need_room(into, chosen.bytes, f"snapshot {chosen.name}")
        place = self.catalogue.archive(chosen.name)
        archive.unpack(place, chosen, into, self.journal.remaining)

    def _wanted(self, editor: ChromaEditor, chosen: Manifest) -> list[StoredCollection]:
        """The one of the context, else those that are damaged or missing, else all of a snapshot
        that was named."""
        if self.scope.collection is not None:
            named = [one for one in chosen.collections if one.name == self.scope.collection]
            if not named:
                raise NoSnapshot(
                    f"snapshot {chosen.name} has no collection {self.scope.collection!r}",
                    {"snapshots": [chosen.name]},
                )
            return named
        damaged = [one for one in chosen.collections if self._is_damaged(editor, one)]
        if not damaged and self.scope.snapshot is not None:
            return list(chosen.collections)
        return damaged

    def _is_damaged(self, editor: ChromaEditor, one: StoredCollection) -> bool:
        problem = self._problem(editor, one)
        if problem is not None:
            self.journal.note(f"{one.name}: to be restored", problem=problem, records=one.records)
        return problem is not None

    def _problem(self, editor: ChromaEditor, one: StoredCollection) -> str | None:
        listed = editor.find(one.name)
        if listed is None:
            return "not there"
        try:
            found = survives(self.target, editor, listed, self.journal)
        except (TargetRefused, TargetUnreachable):
            raise
        except RemedyError as error:
            return error.message
        if isinstance(found, str):
            self._deadly.add(one.name)
            return found
        return found.finding.summary if found.finding else None

    def _count(self, editor: ChromaEditor, wanted: list[StoredCollection]) -> int:
        """What the server says of how many there were, as far as it still can."""
        counted = 0
        for one in wanted:
            if one.name in self._deadly:
                continue
            with suppress(RemedyError):
                listed = editor.find(one.name)
                counted += editor.count(listed["id"]) if listed else 0
        return counted

    def _make(self, replacement: Replacement, one: StoredCollection, folder: Path) -> None:
        editor = replacement.editor
        made = replacement.make(one.name, {"name": one.name, **one.settings})
        file = next(folder.glob(f"*/{one.file}"))
        self.journal.change(
            f"{one.name}: restored beside the old one",
            lambda: self._fill(editor, made, one, file),
            records=one.records,
        )
        if self.parameters.salvage:
            self._carry_over(editor, made, one)
        replacement.has(one.name, made)

    def _fill(self, editor: ChromaEditor, made: Listed, one: StoredCollection, file: Path) -> None:
        """And see that it is what the snapshot holds. Raises ``StillUnhealthy``."""
        size = editor.page_size(one.settings.get("dimension"))
        sample, filled, said = Sample(), 0, 0
        for page in records.pages(file, size):
            self.journal.remaining()
            for part in portions(page):
                editor.upsert(made["id"], part)
            sample.take(page)
            filled += len(page["ids"])
            percent = int(100 * filled / max(one.records, 1))
            if percent >= said + 5:
                said = percent
                self.journal.progress(f"{one.name}: restored", min(percent, 100))
        if one.moving:
            # A record may be in it twice: as it was, and as it was written meanwhile.
            if editor.count(made["id"]) != one.records:
                raise StillUnhealthy(f"{one.name}: not all of {one.records} records are there")
        elif Content.read(editor, made["id"]) != Content.of(records.pages(file, size)):
            raise StillUnhealthy(f"{one.name}: what the server has is not what the snapshot holds")
        else:
            sample.compare(editor, made)
        prove(self.target, editor, made["name"])

    def _carry_over(self, editor: ChromaEditor, made: Listed, one: StoredCollection) -> None:
        """Records that the snapshot does not know and that are readable with their vectors."""
        old = editor.find(one.name)
        if old is None or one.name in self._deadly:
            return
        carried = unreadable = lost = 0
        for page in self._readable(editor, old):
            if page is None:
                unreadable += 1
                continue
            known = set(editor.read_ids(made["id"], page["ids"], ())["ids"])
            missing = [row for row, name in enumerate(page["ids"]) if name not in known]
            rows = [row for row in missing if _is_whole(page["embeddings"][row])]
            lost += len(missing) - len(rows)
            newer = {column: [values[row] for row in rows] for column, values in page.items()}
            for part in portions(newer):
                editor.upsert(made["id"], part)
            carried += len(rows)
        self.journal.note(
            f"{one.name}: carried over what is newer than the snapshot",
            records=carried,
            unreadable_pages=unreadable,
            without_vector=lost,
        )

    def _readable(self, editor: ChromaEditor, old: Listed) -> Iterator[Records | None]:
        """Page by page, None for one that cannot be read."""
        size, offset = min(editor.page_size(old.get("dimension")), SALVAGE_PAGE), 0
        try:
            count = editor.count(old["id"])
        except RemedyError:
            yield None
            return
        while offset < count:
            self.journal.remaining()
            try:
                page, size = editor.page(old["id"], offset, size, EVERYTHING)
                yield page if page["ids"] else None
            except TargetUnreachable as error:
                outlive(self.target, self.journal, error)
                yield None
                return
            except RemedyError:
                yield None
            offset += size

    def _rehearse(self, editor: ChromaEditor, chosen: Manifest) -> None:
        wanted = self._wanted(editor, chosen)
        self.journal.note(
            "would go back to",
            snapshot=chosen.name,
            records=sum(one.records for one in wanted),
            records_before=self._count(editor, wanted),
            seconds_back=_seconds_back(chosen),
        )
        for one in wanted:
            self.journal.change(f"{one.name}: restored beside the old one", lambda: None)
            self.journal.change(f"{one.name}: new collection in place of the old one", lambda: None)


def _is_whole(vector: list[float | None] | None) -> bool:
    return vector is not None and len(vector) > 0 and None not in vector


def _seconds_back(chosen: Manifest) -> float | None:
    """None where a clock was wrong."""
    passed = age(chosen.taken_at, datetime.now(UTC))
    return None if passed is None else round(passed, 1)

"""``chromadb.index_rebuild``: a new vector index from everything that still has a vector."""

from __future__ import annotations

import shutil
import sqlite3
import uuid
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from pydantic import Field

from recovery.components.chromadb import exclusive
from recovery.components.chromadb.rebuilding import taking_over, work
from recovery.components.chromadb.rebuilding.exchange import (
    LOG,
    Exchange,
    Overtaken,
    is_in_place,
    perform,
    place,
    remove_unused,
    writing,
)
from recovery.components.chromadb.rebuilding.orders import (
    INDEX,
    MISSING,
    UNREADABLE,
    BuildOrder,
    Damaged,
    SurveyOrder,
)
from recovery.components.chromadb.rebuilding.taking_over import Late
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import NothingKept, RemedyError, StillUnhealthy, VectorsLost
from recovery.strategy import Duration, Journal, Kept, Parameters, Scope, strategy

RELOAD = "reload_collections"
ROUNDS = 3
"""How often an index that somebody saves meanwhile is built anew."""
STEP_PERCENT = 5
FILES_SECONDS = 60.0
"""How long the files of all indexes may be looked at."""
BYTES_A_RECORD = 400
"""What a record takes beside its vector while its index is built: links, names, log."""


class IndexRebuild(Parameters):
    """``embedding_functions``: for collections of which documents are all that is left, the
    function by which each was embedded: ``module:attribute``, or a name that Chroma knows; ``*``
    is for all others. It gets those of the worker's environment variables that
    ``embedding_environment`` names. ``lock_patience``: how long a locked database is waited for.
    """

    embedding_functions: dict[str, str] = Field(default_factory=dict)
    embedding_environment: tuple[str, ...] = ()
    lock_patience: Duration = 10.0


class RebuildScope(Scope):
    """``collection``: only this one, whatever its files look like."""

    collection: str | None = None


@strategy(
    component="chromadb",
    summary="Build damaged vector indexes anew from what is readable; the old ones stay aside.",
    parameters=IndexRebuild,
    scope=RebuildScope,
    undo="recovery.components.chromadb.rebuild_undo:undo",
    discard="recovery.components.chromadb.rebuild_undo:discard",
    # A quarter of an hour holds some hundred thousand vectors; the playbook's ten seconds are
    # over at forty thousand, and a rebuild that is cut off has only cost time.
    timeout_seconds=900.0,
)
def index_rebuild(target: ChromaTarget, parameters: IndexRebuild, journal: Journal) -> None:
    """Raises ``VectorsLost`` where only a snapshot can help, ``EmbeddingUnavailable``,
    ``TargetUnreachable`` where the database stays locked, ``NothingKept`` where there is no room,
    ``StillUnhealthy`` where an application saves faster than an index can be built."""
    if target.path is None:
        from recovery.components.chromadb.rebuilding import served_copy

        served_copy.rebuild(target, parameters, journal)
        return
    Rebuild(target, target.path, parameters, journal).run()


class Rebuild:
    """One run on a directory, or the rest of one that was killed."""

    def __init__(
        self, target: ChromaTarget, path: Path, parameters: IndexRebuild, journal: Journal
    ) -> None:
        self.target = target
        self.path = path
        self.parameters = parameters
        self.journal = journal
        self.done: list[Exchange] = []
        self._late: list[Late] = []

    def run(self) -> None:
        if not self.journal.dry_run:
            self._resume()
        damaged = self._survey()
        for one in damaged:
            self.journal.note(
                f"{one.name}: its index is to be built anew",
                records=one.records,
                problem=one.problem or "asked for",
            )
            if self.journal.dry_run:
                self.journal.change(f"{one.name}: index built anew", lambda: None)
            else:
                self._rebuild(one)
        if not self.journal.dry_run:
            self._bring_over()

    def _bring_over(self) -> None:
        """Have whoever uses the directory go over to the new indexes."""
        if self.target.server is not None:
            taking_over.bring_over(self.target, self.target.server, self.journal, self._late)
        elif not self.done:
            raise RemedyError("no index of the directory is damaged")
        self.journal.tell_applications("applications asked to open their collections anew", RELOAD)

    def _resume(self) -> None:
        """A run that was killed around an exchange: the database says whether it was done."""
        kept = self.journal.keep()
        known = [Exchange.from_dict(plain) for plain in kept.facts.get("exchanges", ())]
        for exchange in known:
            if is_in_place(self.path, exchange, self.parameters.lock_patience):
                self.done.append(exchange)
        if known:
            self.journal.note("taken up again", exchanged=len(self.done))
            remove_unused(
                self.path,
                (one.new for one in known if one not in self.done),
                self.parameters.lock_patience,
            )
            self._describe(kept)

    def _survey(self) -> list[Damaged]:
        order = SurveyOrder(
            path=str(self.path),
            tenant=self.target.tenant,
            database=self.target.database,
            timeout=min(work.deadline_of(self.journal.remaining), FILES_SECONDS),
            patience=self._patience(),
        )
        verdict = work.run("surveying", order, self.journal.remaining)
        if UNREADABLE in verdict:
            raise RemedyError(
                f"the database itself cannot be read, not only an index: {verdict[UNREADABLE]};"
                " a snapshot is what can help"
            )
        found = [Damaged(**plain) for plain in verdict["collections"]]
        chosen = getattr(self.journal.scope, "collection", None)
        if chosen is not None:
            found = [one for one in found if one.is_own and one.name == chosen]
            if not found:
                raise RemedyError(f"there is no collection {chosen!r}")
            return [one for one in found if one.id not in {done.collection for done in self.done}]
        broken = [one for one in found if one.problem]
        if verdict["recordless"] and not broken:
            names = ", ".join(verdict["recordless"])
            raise RemedyError(
                f"the database does not know the records of {names} any more, which no index brings"
                " back; a snapshot is what can help"
            )
        return broken or self._loaded(found)

    def _loaded(self, found: list[Damaged]) -> list[Damaged]:
        """What no file shows, opening a copy may: the one index that the inspection names."""
        from recovery.components.chromadb import child
        from recovery.components.chromadb.findings import Budget

        if self.done:
            return []
        seconds = min(work.deadline_of(self.journal.remaining), FILES_SECONDS)
        looked = child.inspect(self.target, self.path, Budget(seconds)).finding
        if looked is None or looked.segment is None:
            return []
        return [one for one in found if one.segment == looked.segment]

    def _rebuild(self, one: Damaged) -> None:
        for number in range(ROUNDS):
            try:
                self._try(one, is_last=number == ROUNDS - 1)
            except Overtaken:
                self.journal.note(f"{one.name}: saved or replaced meanwhile; once more")
                continue
            return
        raise StillUnhealthy(f"an application saves {one.name} faster than its index can be built")

    def _try(self, one: Damaged, *, is_last: bool) -> None:
        """Build beside whoever writes; the last time they wait for it, as for any other writer."""
        kept = self.journal.keep()
        new = str(uuid.uuid4())
        try:
            with work.private_place(self.path) as private, ExitStack() as held:
                built_in = self.path.stat().st_ino
                if is_last:
                    self.journal.note(f"{one.name}: writers wait until its index is built")
                    held.enter_context(self._alone())
                    connection = held.enter_context(writing(self.path, self._patience()))
                    verdict = self._build(one, private)
                else:
                    verdict = self._build(one, private)
                    held.enter_context(self._alone())
                    connection = held.enter_context(writing(self.path, self._patience()))
                if self.path.stat().st_ino != built_in:
                    # Somebody went back to a snapshot: what was built is of another directory.
                    raise Overtaken(one.name)
                exchange = _exchange(one, verdict, new)
                has_more = self._exchange(connection, exchange, verdict.get("index"), kept)
            self.done.append(exchange)
            self._late.append(Late(one.id, one.name, verdict["dimension"], has_more))
        finally:
            if all(done.new != new for done in self.done):
                remove_unused(self.path, iter([new]), self._patience())
            self._describe(kept)

    def _alone(self) -> AbstractContextManager[None]:
        """A snapshot copies for as long as it needs, and what was built costs more than to wait."""
        patience = max(self._patience(), self.journal.remaining() / 2)
        return exclusive.alone(self.path, patience)

    def _build(self, one: Damaged, private: Path) -> dict[str, Any]:
        self._see_room(one)
        verdict = self._run_build(one, private)
        if verdict["missing"]:
            from recovery.components.chromadb.rebuilding.sources import Lacking, Sources

            others = Sources(self.target, self.parameters, self.journal, self._patience())
            told = Told(self.journal, one.name)
            if others.fill(Lacking(one, private, verdict["dimension"]), told):
                verdict = self._run_build(one, private)
        if verdict["missing"]:
            raise VectorsLost(
                f"{one.name}: of {verdict['missing']} of its {verdict['records']} records no vector"
                f" is left ({'; '.join(verdict['why'])}); a snapshot is what can help, or an"
                " embedding function in the policy",
                {
                    "collection": one.name,
                    "records": verdict["records"],
                    "missing": verdict["missing"],
                },
            )
        self.journal.note(
            f"{one.name}: index built and found right",
            records=verdict["records"],
            from_files=verdict["from_files"],
            from_log=verdict["from_log"],
            from_elsewhere=verdict["from_elsewhere"],
            lengths_lost=verdict["lengths_lost"],
            names_by_order=verdict["by_order"],
            peak_mb=verdict["peak_mb"],
        )
        return verdict

    def _run_build(self, one: Damaged, private: Path) -> dict[str, Any]:
        for leftover in (private / INDEX, private / MISSING):
            shutil.rmtree(leftover, ignore_errors=True)
            leftover.unlink(missing_ok=True)
        order = BuildOrder(
            path=str(self.path),
            place=str(private),
            collection=one.id,
            segment=one.segment,
            timeout=work.deadline_of(self.journal.remaining),
            patience=self._patience(),
        )
        try:
            return work.run("building", order, self.journal.remaining, Told(self.journal, one.name))
        except RemedyError:
            # Chroma does not say that a disk is full: whatever failed then failed of that.
            self._see_room(one)
            raise

    def _exchange(
        self, connection: sqlite3.Connection, exchange: Exchange, built: str | None, kept: Kept
    ) -> bool:
        """Whether the log holds more by now than the new index."""

        def put_in_place() -> bool:
            self._write_down(kept, [*self.done, exchange])
            try:
                place(Path(built) if built else None, self.path, exchange)
                return perform(connection, exchange, kept.folder) > exchange.end
            except OSError as error:
                raise NothingKept(f"{self.path}: {error}") from error

        return bool(
            self.journal.change(f"{exchange.name}: new index in place of the old one", put_in_place)
        )

    def _see_room(self, one: Damaged) -> None:
        needed = one.records * (4 * (one.dimension or 0) * 3 + BYTES_A_RECORD)
        free = shutil.disk_usage(self.path).free
        if needed > free:
            raise NothingKept(
                f"{one.name}: {needed // 10**6} MB are needed beside the old index, and"
                f" {free // 10**6} MB are free"
            )

    def _patience(self) -> float:
        return min(self.parameters.lock_patience, max(self.journal.remaining() / 2, 0.5))

    def _write_down(self, kept: Kept, exchanges: list[Exchange]) -> None:
        kept.store(
            "indexes being exchanged",
            path=str(self.path),
            exchanges=[exchange.as_dict() for exchange in exchanges],
        )

    def _describe(self, kept: Kept) -> None:
        """Say what is kept; a folder that keeps nothing is given up."""
        names = ", ".join(sorted({exchange.name for exchange in self.done}))
        plain = [exchange.as_dict() for exchange in self.done]
        kept.store(
            f"the old index of {names}"[:160] if plain else "",
            exchanges=plain,
            lies_beside=folders(self.path, (exchange.old for exchange in self.done)),
        )
        if not plain:
            (kept.folder / LOG).unlink(missing_ok=True)


def _exchange(one: Damaged, verdict: dict[str, Any], new: str) -> Exchange:
    return Exchange(
        collection=one.id,
        name=one.name,
        old=one.segment,
        new=new,
        saved=verdict["saved"],
        end=verdict["end"],
        records=verdict["records"],
        is_listed=one.is_listed,
    )


def folders(path: Path, segments: Iterable[str | None]) -> list[str]:
    """Where the indexes of a directory lie."""
    return [str(path / segment) for segment in segments if segment is not None]


class Told:
    """Passes progress on to the journal, in steps that a person can read."""

    def __init__(self, journal: Journal, name: str) -> None:
        self._journal = journal
        self._name = name
        self._said = 0

    def __call__(self, doing: str, percent: int) -> None:
        if percent >= self._said + STEP_PERCENT:
            self._said = percent
            self._journal.progress(f"{self._name}: {doing}", percent)

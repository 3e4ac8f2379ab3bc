"""One collection of a server copied into a new one through the API, while others may write to it.

A pass copies what is not as it was in the pass before; one in which nothing was is the end. Where
the server has no vector any more, the document is embedded anew, if the policy says how.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from recovery.components.chromadb import answers
from recovery.components.chromadb.api import Overlong
from recovery.components.chromadb.editing import EVERYTHING, ChromaEditor, Listed, Records
from recovery.components.chromadb.rebuilding import orders, work
from recovery.components.chromadb.rebuilding.ledger import Ledger
from recovery.components.chromadb.rebuilding.orders import TextsOrder
from recovery.components.chromadb.rebuilding.sources import EVERYBODY
from recovery.components.chromadb.served_replacement import Sample, portions
from recovery.errors import (
    DeadlineExceeded,
    EmbeddingUnavailable,
    RecordsUnreadable,
    RemedyError,
    StillUnhealthy,
    TargetRefused,
    TargetUnreachable,
    VectorsLost,
)
from recovery.strategy import Journal

if TYPE_CHECKING:
    from recovery.components.chromadb.index_rebuild import IndexRebuild, Told

ROUNDS = 5
SMALLEST = 100
"""Of a page that cannot be read, parts as small as this are tried."""
PARTS = 4
SURVIVORS = 32
EMBEDDED_AT_ONCE = 500
WITHOUT_VECTORS = ("documents", "metadatas", "uris")


@dataclass(slots=True)
class Copy:
    """``old`` and ``new`` as the server lists them; ``place`` is a private folder."""

    editor: ChromaEditor
    old: Listed
    new: Listed
    parameters: IndexRebuild
    journal: Journal
    ledger: Ledger
    place: Path
    told: Told
    _sample: Sample = field(default_factory=Sample)
    _survivors: int = 0
    _from_documents: int = 0

    @property
    def name(self) -> str:
        return str(self.old["name"])

    def run(self) -> None:
        """Raises ``VectorsLost``, ``RecordsUnreadable`` where the server refuses the documents as
        well, ``EmbeddingUnavailable``, ``StillUnhealthy`` where it is written to faster than it can
        be copied, or where the new one is not what was given to it."""
        for _ in range(ROUNDS):
            if not self.catch_up():
                break
        else:
            raise StillUnhealthy(f"an application writes to {self.name} in every pass of its copy")
        if self.editor.count(self.new["id"]) != self.ledger.count():
            raise StillUnhealthy(f"the new collection has not all records of {self.name}")
        self._sample.compare(self.editor, self.new)
        self.journal.note(
            f"{self.name}: copied and found right",
            records=self.ledger.count(),
            from_documents=self._from_documents,
        )

    def catch_up(self) -> int:
        """One pass: how many records were not as they were before it."""
        self.ledger.begin()
        with self._readable():
            total = max(self.editor.count(self.old["id"]), 1)
        changed = seen = lost = 0
        shutil.rmtree(self.place / orders.SUPPLEMENT, ignore_errors=True)
        with (self.place / orders.TEXTS).open("w", encoding="utf-8") as texts:
            for page in self._pages():
                self.journal.remaining()
                rows = self.ledger.changed(page)
                lost += self._take(_rows(page, rows), texts)
                changed += len(rows)
                seen += len(page["ids"])
                self.told("copied", min(int(100 * seen / total), 100))
        self._refuse_lost(lost, seen)
        for names in self.ledger.gone():
            self.editor.delete(self.new["id"], names)
            self._sample.forget(names)
            changed += len(names)
        if (self.place / orders.TEXTS).stat().st_size:
            self._embed()
        return changed

    def _take(self, page: Records, texts: IO[str]) -> int:
        """What has a vector is copied, and documents of the rest noted; how many have neither."""
        usable = [self._is_usable(vector) for vector in page["embeddings"]]
        with_vector = _rows(page, [row for row, good in enumerate(usable) if good])
        for part in portions(with_vector):
            self.editor.upsert(self.new["id"], part)
        self._sample.take(with_vector)
        self._remember(with_vector)
        lost = 0
        for row, good in enumerate(usable):
            document = page["documents"][row]
            if good:
                continue
            if document is None or self._function is None:
                lost += 1
                continue
            texts.write(f"{json.dumps({'id': page['ids'][row], 'document': document})}\n")
        return lost

    @property
    def _function(self) -> str | None:
        functions = self.parameters.embedding_functions
        return functions.get(self.name, functions.get(EVERYBODY))

    def _is_usable(self, vector: list[float | None] | None) -> bool:
        """A server hands out what is no number as null, and what has lost its length as zeros."""
        if vector is None or any(part is None or not math.isfinite(part) for part in vector):
            return False
        return any(vector) or answers.space(self.old.get("configuration_json")) != "cosine"

    def _remember(self, page: Records) -> None:
        """A few vectors with their documents, by which an embedding function is known."""
        if self._function is None or self._survivors >= SURVIVORS:
            return
        with (self.place / orders.KNOWN).open("a", encoding="utf-8") as known:
            for document, vector in zip(page["documents"], page["embeddings"], strict=True):
                if document is not None and self._survivors < SURVIVORS:
                    known.write(f"{json.dumps({'document': document, 'vector': vector})}\n")
                    self._survivors += 1

    def _refuse_lost(self, lost: int, seen: int) -> None:
        if lost:
            raise VectorsLost(
                f"{self.name}: of {lost} of its {seen} records the server has no vector any more;"
                " a snapshot is what can help, or an embedding function in the policy",
                {"collection": self.name, "records": seen, "missing": lost},
            )

    def _pages(self) -> Iterator[Records]:
        size, offset = self.editor.page_size(self.old.get("dimension")), 0
        while True:
            got = 0
            for page in self._part(offset, size):
                got += len(page["ids"])
                yield page
            if not got:
                return
            offset += size

    def _part(self, offset: int, size: int) -> Iterator[Records]:
        try:
            yield self.editor.read(self.old["id"], offset, size, EVERYTHING)
        except (TargetUnreachable, TargetRefused):
            raise
        except Overlong:
            yield from self._parts(offset, size, 1)
        except RemedyError:
            yield from self._parts(offset, size, SMALLEST)

    def _parts(self, offset: int, size: int, smallest: int) -> Iterator[Records]:
        if size <= smallest:
            try:
                yield self._without_vectors(offset, size)
            except Overlong as error:
                if size == 1:
                    raise RemedyError(f"{self.name}: a record is too long to be read") from error
                yield from self._parts(offset, size, 1)
            return
        step = -(-size // PARTS)
        for start in range(offset, offset + size, step):
            yield from self._part(start, min(step, offset + size - start))

    def _without_vectors(self, offset: int, size: int) -> Records:
        with self._readable():
            page = self.editor.read(self.old["id"], offset, size, WITHOUT_VECTORS)
        return {"ids": page["ids"], "embeddings": [None] * len(page["ids"]), **_columns(page)}

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """What the server refuses without vectors as well it will not hand out at all."""
        try:
            yield
        except (TargetUnreachable, TargetRefused, DeadlineExceeded):
            raise
        except RemedyError as error:
            said = str(error.facts.get("said") or error.message)
            raise RecordsUnreadable(
                f"{self.name}: the server refuses its documents as well, so that only a snapshot"
                f" can help, or the target's path: {said}",
                {"collection": self.name, "said": said},
            ) from error

    def _embed(self) -> None:
        from recovery.components.chromadb.rebuilding.supplement import Supplement

        dimension = int(self.old.get("dimension") or 0)
        said = self._run(dimension)
        supplement = Supplement(self.place / orders.SUPPLEMENT, dimension)
        for names, vectors in supplement.vectors(set(supplement.names()), EMBEDDED_AT_ONCE):
            self.journal.remaining()
            given = dict(zip(names, vectors.tolist(), strict=True))
            page = self.editor.read_ids(self.old["id"], names, WITHOUT_VECTORS)
            page["embeddings"] = [given[name] for name in page["ids"]]
            for part in portions(page):
                self.editor.upsert(self.new["id"], part)
            self._sample.take(page)
        self._from_documents += said["embedded"]
        self.journal.note(
            f"{self.name}: documents embedded anew",
            function=self._function,
            records=said["embedded"],
            compared=said["compared"],
        )

    def _run(self, dimension: int) -> dict[str, Any]:
        wanted = self.parameters.embedding_environment
        environment = {key: os.environ[key] for key in wanted if key in os.environ}
        order = TextsOrder(
            place=str(self.place),
            function=str(self._function),
            recorded=answers.embedding_function(self.old.get("configuration_json")),
            dimension=dimension,
            timeout=work.deadline_of(self.journal.remaining),
        )
        said = work.run("embedding_texts", order, self.journal.remaining, self.told, environment)
        if "unavailable" in said:
            raise EmbeddingUnavailable(f"{self.name}: {said['unavailable']}")
        return said


def _rows(page: Records, rows: list[int]) -> Records:
    return {column: [values[row] for row in rows] for column, values in page.items()}


def _columns(page: Records) -> Records:
    return {column: page[column] for column in WITHOUT_VECTORS}

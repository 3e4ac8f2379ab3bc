"""A Chroma server's collections changed over HTTP: made, filled, renamed, deleted.

It knows no recovery: what may be changed, and in which order, is its callers' business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from recovery.components.chromadb.api import ChromaServer, Overlong, Refused, Unanswered, quoted
from recovery.components.chromadb.findings import Budget
from recovery.components.chromadb.sampling import CollectionError
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import (
    NotConfigured,
    RemedyError,
    TargetRefused,
    TargetUnreachable,
    VectorsLost,
)

PAGE = 5_000
"""The most records of one request."""
LISTED = 1_000
"""How many collections one answer lists."""
PAGE_BYTES = 8 * 1024 * 1024
"""What the vectors of one page may take as text: a server refuses requests of 40 MB."""
NUMBER_BYTES = 22
RECORD_BYTES = 1_000
EVERYTHING = ("embeddings", "documents", "metadatas", "uris")
COLUMNS = ("ids", *EVERYTHING)

Listed = dict[str, Any]
"""A collection as the server lists it: ``id``, ``name``, ``metadata``, ``schema`` and the like."""
Records = dict[str, list[Any]]
"""Columns of equal length: ``ids``, and those of ``EVERYTHING`` that were asked for."""


class ChromaEditor(ChromaServer):
    """A conversation in which collections are changed. Every call raises a ``RemedyError``."""

    @classmethod
    def of(cls, target: ChromaTarget, seconds: float) -> Self:
        """Raises ``NotConfigured`` where the target names no server."""
        if target.server is None:
            raise NotConfigured("add the key url to the target", {"key": "url"})
        return cls(target, target.server, Budget(seconds))

    def all(self) -> list[Listed]:
        """Every collection of the database, however many."""
        found: list[Listed] = []
        while True:
            page = self._call("GET", f"{self._collections}?limit={LISTED}&offset={len(found)}")
            found += page
            if len(page) < LISTED:
                return found

    def find(self, name: str) -> Listed | None:
        try:
            found: Listed = self._ask(
                "GET", f"{self._collections}/{quoted(name)}", patience=self._budget.seconds
            )
        except Refused as refused:
            if refused.finding.failure_type == "collection_missing":
                return None
            raise _as_remedy_error(refused) from refused
        except Unanswered as error:
            raise _as_remedy_error(error) from error
        return found

    def create(self, name: str, like: Listed) -> Listed:
        """A new, empty one with the metadata and all settings of ``like``.

        A schema says more than a configuration, and of one that holds nothing but defaults a
        server forgets the embedding function; so what was made is compared. Raises ``RemedyError``
        where the server gives other settings than it was asked for.
        """
        wanted = like.get("configuration_json")
        for said in ({"schema": like.get("schema")}, {"configuration": wanted}):
            asked = {"name": name, "metadata": like.get("metadata"), "get_or_create": False}
            made: Listed = self._call("POST", self._collections, {**asked, **said})
            if wanted in (None, made["configuration_json"]):
                return made
            self.drop(name, made["id"])
        raise RemedyError(f"the server makes {name} with other settings than it is asked for")

    def rename(self, identity: str, name: str) -> None:
        self._call("PUT", f"{self._collections}/{identity}", {"new_name": name})

    def drop(self, name: str, identity: str) -> bool:
        """Delete it, if the name still is that collection's; the API deletes by name alone."""
        found = self.find(name)
        if found is None or found["id"] != identity:
            return False
        self._call("DELETE", f"{self._collections}/{quoted(name)}")
        return True

    def count(self, identity: str) -> int:
        return int(self._call("GET", f"{self._collections}/{identity}/count"))

    def read(
        self, identity: str, offset: int, limit: int, include: Sequence[str] = EVERYTHING
    ) -> Records:
        said = {"offset": offset, "limit": limit, "include": list(include)}
        return self._get(identity, said, include)

    def pages(
        self, identity: str, size: int, include: Sequence[str] = EVERYTHING
    ) -> Iterator[Records]:
        """All of its records; pages become smaller where they turn out to be too long."""
        offset = 0
        while True:
            page, size = self.page(identity, offset, size, include)
            if not page["ids"]:
                return
            yield page
            offset += len(page["ids"])

    def page(
        self, identity: str, offset: int, size: int, include: Sequence[str] = EVERYTHING
    ) -> tuple[Records, int]:
        """One page, and the size that it had to have."""
        while True:
            try:
                return self.read(identity, offset, size, include), size
            except Overlong as error:
                if size == 1:
                    raise RemedyError("a record is too long to be read") from error
                size = max(size // 4, 1)

    def read_ids(
        self, identity: str, ids: Sequence[str], include: Sequence[str] = EVERYTHING
    ) -> Records:
        """Those of the ids that there are."""
        return self._get(identity, {"ids": list(ids), "include": list(include)}, include)

    def upsert(self, identity: str, records: Records) -> None:
        if records["ids"]:
            said = {column: records[column] for column in COLUMNS if column in records}
            self._call("POST", f"{self._collections}/{identity}/upsert", said)

    def delete(self, identity: str, ids: Sequence[str]) -> None:
        if ids:
            self._call("POST", f"{self._collections}/{identity}/delete", {"ids": list(ids)})

    def page_size(self, dimension: int | None) -> int:
        """How many records one request may hold, by the server's bound and by their size."""
        most = self._call("GET", "/api/v2/pre-flight-checks").get("max_batch_size") or PAGE
        fitting = PAGE_BYTES // ((dimension or 0) * NUMBER_BYTES + RECORD_BYTES)
        return max(min(PAGE, int(most), fitting), 1)

    def _get(self, identity: str, said: dict[str, Any], include: Sequence[str]) -> Records:
        got = self._call("POST", f"{self._collections}/{identity}/get", said)
        return {column: list(got[column] or ()) for column in ("ids", *include)}

    def _call(self, method: str, path: str, said: dict[str, Any] | None = None) -> Any:
        """With all the time there is: the first question may have to load an index."""
        with heard():
            return self._ask(method, path, said, patience=self._budget.seconds)


@contextmanager
def heard() -> Iterator[None]:
    """What the server's answer, or its silence, means to a remedy.

    ``Overlong`` passes: whoever asked may ask for less.
    """
    try:
        yield
    except CollectionError as error:
        raise RemedyError(f"the server cannot read the collection: {error}") from error
    except Overlong:
        raise
    except Unanswered as error:
        raise _as_remedy_error(error) from error


def _as_remedy_error(error: Unanswered) -> RemedyError:
    found = error.finding
    if found.failure_type == "auth_failure":
        return TargetRefused(found.summary)
    if not isinstance(error, Refused) or found.failure_type == "temporary_failure":
        return TargetUnreachable(found.summary)
    if found.failure_type == "index_corrupted":
        return VectorsLost(f"the server cannot read vectors any more: {found.summary}")
    return RemedyError(f"the server refuses it: {found.summary}")

"""A Chroma server's collections changed over HTTP: made, filled, renamed, deleted.

It knows no recovery: what may be changed, and in which order, is its callers' business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import httpx

from recovery.components.chromadb import answers
from recovery.components.chromadb.api import ChromaServer, Overlong, Refused, Unanswered, quoted
from recovery.components.chromadb.findings import Budget
from recovery.components.chromadb.sampling import CollectionError
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import (
    DeadlineExceeded,
    NotConfigured,
    RecordsUnreadable,
    RemedyError,
    TargetRefused,
    TargetUnreachable,
)

PAGE = 5_000
"""The most records of one request."""
LISTED = 1_000
"""How many collections one answer lists."""
PAGE_BYTES = 8 * 1024 * 1024
"""What the vectors of one page may take as text: a server refuses requests of 40 MB."""
MOST_COLLECTIONS = 100_000
NUMBER_BYTES = 22
RECORD_BYTES = 1_000
EVERYTHING = ("embeddings", "documents", "metadatas", "uris")
COLUMNS = ("ids", *EVERYTHING)
MISSING = "collection_missing"

T = TypeVar("T")

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
        found: dict[str, Listed] = {}
        for offset in range(0, MOST_COLLECTIONS, LISTED):
            path = f"{self._collections}?limit={LISTED}&offset={offset}"
            page = self._said(answers.wholes, "GET", path)
            found.update((one["id"], dict(one)) for one in page)
            if len(page) < LISTED:
                return list(found.values())
        raise RemedyError(f"the server lists more than {MOST_COLLECTIONS} collections")

    def make_database(self, tenant: str, database: str) -> None:
        """The target's own, and its tenant; no error where another made one of them before."""
        for path, name in ((self._tenants, tenant), (self._databases, database)):
            try:
                self._call("POST", path, {"name": name})
            except RemedyError as error:
                if not is_there_already(error):
                    raise

    def find(self, name: str) -> Listed | None:
        path = f"{self._collections}/{quoted(name)}"
        try:
            return self._said(lambda one: dict(answers.whole(one, name)), "GET", path)
        except RemedyError as error:
            refused = error.__cause__
            if isinstance(refused, Refused) and refused.finding.failure_type == MISSING:
                return None
            raise

    def create(self, name: str, like: Listed) -> Listed:
        """A new, empty one with the metadata and all settings of ``like``.

        A schema says more than a configuration, and of one that holds nothing but defaults a
        server forgets the embedding function; so what was made is compared. Raises ``RemedyError``
        where the server gives other settings than it was asked for.
        """
        wanted = like.get("configuration_json")
        for said in ({"schema": like.get("schema")}, {"configuration": wanted}):
            asked = {"name": name, "metadata": like.get("metadata"), "get_or_create": False}
            made = self._said(
                lambda one: answers.whole(one, name), "POST", self._collections, {**asked, **said}
            )
            if wanted in (None, made.get("configuration_json")):
                return dict(made)
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
        return self._said(answers.count, "GET", f"{self._collections}/{identity}/count")

    def read(
        self, identity: str, offset: int, limit: int, include: Sequence[str] = EVERYTHING
    ) -> Records:
        """Raises ``Overlong`` as well: fewer of them may be asked for."""
        said = {"offset": offset, "limit": limit, "include": list(include)}
        with heard(passes=Overlong):
            return self._get(identity, said, lambda got: answers.records(got, include, limit))

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
        said = {"ids": list(ids), "include": list(include)}
        with heard():
            return self._get(
                identity, said, lambda got: answers.records(got, include, len(ids), asked=ids)
            )

    def upsert(self, identity: str, records: Records) -> None:
        if records["ids"]:
            said = {column: records[column] for column in COLUMNS if column in records}
            self._call("POST", f"{self._collections}/{identity}/upsert", said)

    def delete(self, identity: str, ids: Sequence[str]) -> None:
        if ids:
            self._call("POST", f"{self._collections}/{identity}/delete", {"ids": list(ids)})

    def page_size(self, dimension: int | None) -> int:
        """How many records one request may hold, by the server's bound and by their size."""
        most = self._said(answers.batch_limit, "GET", "/api/v2/pre-flight-checks") or PAGE
        fitting = PAGE_BYTES // ((dimension or 0) * NUMBER_BYTES + RECORD_BYTES)
        return max(min(PAGE, most, fitting), 1)

    def _get(
        self, identity: str, said: dict[str, Any], read: Callable[[object], Records]
    ) -> Records:
        path = f"{self._collections}/{identity}/get"
        return self.understood(read, self._patiently("POST", path, said))

    def _said(
        self,
        read: Callable[[object], T],
        method: str,
        path: str,
        said: dict[str, Any] | None = None,
    ) -> T:
        with heard():
            return self.understood(read, self._patiently(method, path, said))

    def _call(self, method: str, path: str, said: dict[str, Any] | None = None) -> None:
        """For what the answer says nothing of: whether it was done is asked afterwards."""
        with heard():
            self._patiently(method, path, said)

    def _patiently(self, method: str, path: str, said: dict[str, Any] | None) -> Any:
        """With all the time there is: the first question may have to load an index.

        A server that never comes to the end of a list would be asked for ever.
        """
        if self._budget.is_over:
            raise DeadlineExceeded(f"the {self._budget.seconds:g} s for this server are over")
        return self._ask(method, path, said, patience=self._budget.seconds)


def is_there_already(error: RemedyError) -> bool:
    """Whether the server refused to make something because it has one of that name."""
    refused = error.__cause__
    return isinstance(refused, Refused) and refused.status == httpx.codes.CONFLICT


@contextmanager
def heard(passes: type[Unanswered] | tuple[()] = ()) -> Iterator[None]:
    """What the server's answer, or its silence, means to a remedy."""
    try:
        yield
    except CollectionError as error:
        raise RemedyError(f"the server cannot read the collection: {error}") from error
    except passes:
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
        return RecordsUnreadable(
            f"the server cannot read the collection's index: {found.summary}",
            {"said": found.summary},
        )
    return RemedyError(f"the server refuses it: {found.summary}")

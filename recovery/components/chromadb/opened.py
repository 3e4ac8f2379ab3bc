"""The collections of a private copy, opened with Chroma itself. The only module that imports it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Before the import: a probe needs no thread a core, and tells nobody that it ran.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")

import chromadb
import numpy as np
from chromadb.config import DEFAULT_DATABASE, DEFAULT_TENANT, Settings

from recovery.components.chromadb.sampling import CollectionError, Vector

PAGE = 500


class OpenedCollection:
    """A ``sampling.Collection`` of this process's own client."""

    def __init__(self, collection: Any) -> None:
        self._collection = collection
        self.name = str(collection.name)
        settings = collection.configuration or {}
        kind = settings.get("hnsw") or settings.get("spann") or {}
        self.space: str | None = kind.get("space")

    def count(self) -> int:
        with _named_errors():
            return int(self._collection.count())

    def page(self, offset: int, limit: int) -> list[tuple[str, Vector]]:
        with _named_errors():
            got = self._collection.get(offset=offset, limit=limit, include=["embeddings"])
            vectors = [vector.tolist() for vector in got["embeddings"]]
            return list(zip(got["ids"], vectors, strict=True))

    def query(self, vector: Vector, hits: int) -> list[tuple[str, float]]:
        with _named_errors():
            got = self._collection.query(
                query_embeddings=[vector], n_results=hits, include=["distances"]
            )
            return list(zip(got["ids"][0], map(float, got["distances"][0]), strict=True))

    def vectors(self, offset: int, limit: int) -> Any | None:
        """A matrix of a page's vectors; None where one of them is not finite."""
        with _named_errors():
            got = self._collection.get(offset=offset, limit=limit, include=["embeddings"])
            vectors = np.asarray(got["embeddings"], dtype=np.float32)
        return vectors if np.isfinite(vectors).all() else None


def open_all(view: Path, tenant: str, database: str) -> list[OpenedCollection]:
    """Every collection of one database. Raises ``CollectionError``; writes into ``view``."""
    with _named_errors():
        client = chromadb.PersistentClient(
            path=str(view),
            settings=Settings(anonymized_telemetry=False),
            tenant=tenant,
            database=database,
        )
        found: list[Any] = []
        while page := client.list_collections(limit=PAGE, offset=len(found)):
            found += page
        return [OpenedCollection(collection) for collection in found]


def open_collections(
    view: Path, tenant: str, database: str, names: list[str]
) -> dict[str, OpenedCollection]:
    """Raises ``CollectionError``. Writes into ``view``, so it must be a copy."""
    with _named_errors():
        client = chromadb.PersistentClient(
            path=str(view),
            settings=Settings(anonymized_telemetry=False),
            tenant=tenant,
            database=database,
        )
        return {name: OpenedCollection(client.get_collection(name)) for name in names}


@contextmanager
def writing(folder: Path, tenant: str, database: str, name: str) -> Iterator[Any]:
    """Chroma's own collection. Raises ``CollectionError``; ``folder`` must be ours alone."""
    with _named_errors():
        client = chromadb.PersistentClient(
            path=str(folder),
            settings=Settings(anonymized_telemetry=False),
            tenant=tenant,
            database=database,
        )
        yield client.get_collection(name, embedding_function=None)


@contextmanager
def making(folder: Path, tenant: str, database: str) -> Iterator[Any]:
    """Chroma's own client on an empty folder of ours. Raises ``CollectionError``."""
    with _named_errors():
        settings = Settings(
            anonymized_telemetry=False, is_persistent=True, persist_directory=str(folder)
        )
        admin = chromadb.AdminClient(settings)
        if tenant != DEFAULT_TENANT:
            admin.create_tenant(tenant)
        if (tenant, database) != (DEFAULT_TENANT, DEFAULT_DATABASE):
            admin.create_database(database, tenant)
        yield chromadb.PersistentClient(
            path=str(folder),
            settings=Settings(anonymized_telemetry=False),
            tenant=tenant,
            database=database,
        )


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise CollectionError(f"{type(error).__name__}: {error}") from error

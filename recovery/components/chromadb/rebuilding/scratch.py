"""A Chroma of our own in a private folder, which builds one index. The target is not known here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")

import chromadb
import numpy as np
from chromadb.api.shared_system_client import SharedSystemClient
from chromadb.config import Settings

from recovery.components.chromadb import index_files, sampling
from recovery.components.chromadb.database import Segment
from recovery.components.chromadb.findings import Budget
from recovery.components.chromadb.opened import OpenedCollection
from recovery.components.chromadb.rebuilding.salvage import Matrix
from recovery.components.chromadb.rebuilding.stock import Stock
from recovery.components.chromadb.view import PICKLE

NAME = "rebuilt"
SAVED_AT_ONCE = 5_000
MOST_SAVES = 20
"""Chroma reads its log anew for each batch, from where the index was last saved: saved too seldom
that costs time, and saved too often the writing does."""

VERIFY_SECONDS = 60.0
CLOSE = 1e-3


class Unproven(Exception):
    """The new index does not hold what was given to it."""


class Scratch:
    """Takes vectors in the portions that ``sizes`` names, so that the last one is saved too."""

    def __init__(self, place: Path, stock: Stock, total: int) -> None:
        self._place = place
        self._stock = stock
        self._total = total
        groups = max(min(total // SAVED_AT_ONCE, MOST_SAVES), 1)
        self._threshold = total // groups
        self._more = total - self._threshold * groups
        self._groups = groups

    def __enter__(self) -> Self:
        settings = self._stock.settings
        self._client = _open(self._place)
        self._batch = int(self._client.get_max_batch_size())
        self._collection = self._client.create_collection(
            NAME,
            configuration={
                "hnsw": {
                    **settings,
                    "space": self._stock.space,
                    "sync_threshold": self._threshold,
                }
            },
            embedding_function=None,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del self._collection, self._client
        SharedSystemClient.clear_system_cache()

    def sizes(self) -> Iterator[int]:
        """Each group ends exactly where Chroma saves the index."""
        for number in range(self._groups):
            left = self._threshold + (1 if number < self._more else 0)
            while left:
                # The last portion of a group is what makes it full.
                size = left if left <= self._batch else min(self._batch, left - 2)
                yield size
                left -= size

    def add(self, names: list[str], vectors: Matrix) -> None:
        self._collection.add(ids=names, embeddings=vectors)

    def verify(self, sample: dict[str, list[float]]) -> Path:
        """The folder of the index, once it was opened anew and found right; raises ``Unproven``."""
        folder = self._folder()
        collection = _open(self._place).get_collection(NAME, embedding_function=None)
        index = OpenedCollection(collection)
        if index.count() != self._total:
            raise Unproven(f"the new index has {index.count()} of {self._total} records")
        found = sampling.examine(index, Budget(VERIFY_SECONDS), latency_ms=float("inf")).finding
        found = found or index_files.examine(
            folder.parent, self._as_segment(folder.name), Budget(VERIFY_SECONDS)
        )
        if found is not None:
            raise Unproven(found.summary)
        got = collection.get(ids=list(sample), include=["embeddings"])
        for name, vector in zip(got["ids"], got["embeddings"], strict=True):
            if not _same(vector, sample[name]):
                raise Unproven(f"the new index has another vector of {name!r}")
        return folder

    def _folder(self) -> Path:
        folders = [path.parent for path in self._place.glob(f"*/{PICKLE}")]
        if len(folders) != 1:
            raise Unproven("the new index was not saved")
        return folders[0]

    def _as_segment(self, identity: str) -> Segment:
        return Segment(
            id=identity,
            collection=self._stock.name,
            is_own=True,
            dimension=self._stock.dimension,
            space=self._stock.space,
            records=self._total,
            logged=0,
            queued=0,
        )


def _open(place: Path) -> Any:
    return chromadb.PersistentClient(str(place), settings=Settings(anonymized_telemetry=False))


def _same(one: Any, other: list[float]) -> bool:
    given = np.asarray(other)
    gap = float(np.linalg.norm(np.asarray(one) - given))
    return gap <= CLOSE * max(float(np.linalg.norm(given)), CLOSE)

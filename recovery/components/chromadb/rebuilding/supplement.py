"""A file of vectors that come from elsewhere than the index: a live server, an embedding function.

Names as JSON lines beside one block of float32; a record counts when both are whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from recovery.components.chromadb.rebuilding.salvage import Matrix

_NAMES, _VECTORS = "names.jsonl", "vectors.f32"


class Supplement:
    """Written by one process, then read by another."""

    def __init__(self, folder: Path, dimension: int) -> None:
        self._folder = folder
        self._dimension = dimension
        self._files: tuple[IO[str], IO[bytes]] | None = None

    def __enter__(self) -> Self:
        """Begin or go on writing."""
        self._folder.mkdir(exist_ok=True)
        names = (self._folder / _NAMES).open("a", encoding="utf-8")
        self._files = (names, (self._folder / _VECTORS).open("ab"))
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files or ():
            file.close()

    def add(self, names: Sequence[str], vectors: Any) -> None:
        """Raises ``ValueError`` where a vector has another length or holds no numbers."""
        matrix = np.asarray(vectors, dtype="<f4")
        if matrix.shape != (len(names), self._dimension):
            raise ValueError(
                f"vectors of {matrix.shape[-1] if matrix.ndim > 1 else 0} dimensions instead of"
                f" {self._dimension}"
            )
        if not np.isfinite(matrix).all():
            raise ValueError("vectors that hold no numbers")
        if self._files is None:
            raise ValueError("not open")
        self._files[1].write(matrix.tobytes())
        self._files[0].writelines(f"{json.dumps(name)}\n" for name in names)

    def names(self) -> list[str]:
        try:
            text = (self._folder / _NAMES).read_text(encoding="utf-8")
            size = (self._folder / _VECTORS).stat().st_size
        except FileNotFoundError:
            return []
        found = [json.loads(line) for line in text.splitlines() if line.endswith('"')]
        return found[: size // (4 * self._dimension)]

    def vectors(self, chosen: set[str], page: int) -> Iterator[tuple[list[str], Matrix]]:
        names = self.names()
        with (self._folder / _VECTORS).open("rb") if names else _nothing() as source:
            for start in range(0, len(names), page):
                part = names[start : start + page]
                matrix = np.fromfile(source, dtype="<f4", count=len(part) * self._dimension)
                matrix = matrix.reshape(len(part), self._dimension)
                use = [number for number, name in enumerate(part) if name in chosen]
                chosen = chosen - {part[number] for number in use}
                if use:
                    yield [part[number] for number in use], matrix[use]


def _nothing() -> IO[bytes]:
    return Path(os.devnull).open("rb")

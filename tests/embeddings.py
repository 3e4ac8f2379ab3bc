"""Embedding functions for tests: the same vector for the same document, without a network."""

from __future__ import annotations

import os
import random
from typing import Any

from tests.chroma_child import vectors

KNOWN = {f"document {number}": vector for number, vector in enumerate(vectors(2_400, 16))}


def own(texts: list[str]) -> list[list[float]]:
    """The one that embedded the collection ``docs``: it gives the very vectors."""
    return [KNOWN.get(text) or other([text])[0] for text in texts]


def other(texts: list[str]) -> list[list[float]]:
    """One that never saw that collection."""
    drawn = [random.Random(f"other {text}") for text in texts]
    return [[one.gauss(0, 1) for _ in range(16)] for one in drawn]


def short(texts: list[str]) -> list[list[float]]:
    return [[1.0, 2.0] for _ in texts]


def keyed(texts: list[str]) -> list[list[float]]:
    if "EMBEDDING_KEY" not in os.environ or "RECOVERY_STATE_DIR" in os.environ:
        raise KeyError("EMBEDDING_KEY")
    return own(texts)


def failing(texts: list[str]) -> Any:
    raise RuntimeError("no network")


NO_FUNCTION = 7

"""Rebuilding through a server's API alone, where its directory is out of reach."""

from __future__ import annotations

from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import NotConfigured
from recovery.strategy import Journal, Kept


def rebuild(_target: ChromaTarget, _journal: Journal) -> None:
    """Raises ``NotConfigured``."""
    raise NotConfigured(
        "the policy does not say where this ChromaDB keeps its files: add the key path to its"
        " target",
        {"key": "path"},
    )


def undo(target: ChromaTarget, journal: Journal, _kept: Kept) -> None:
    rebuild(target, journal)


def discard(target: ChromaTarget, _kept: Kept) -> None:
    """Nothing was kept."""

"""ChromaDB: probed and repaired as a server, and as a directory that is only a child opens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recovery.components.chromadb.declaration import COMPONENT

__all__ = ["COMPONENT"]


def __getattr__(name: str) -> Any:
    """When it is asked for: children import this package too, and a probe waits for them."""
    if name != "COMPONENT":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from recovery.components.chromadb.declaration import COMPONENT

    return COMPONENT

"""Automated recovery and failover for a self-hosted LLM stack.

``trigger`` is all that an application needs to ask for a recovery; importing it costs next to
nothing until it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recovery.version import __version__

if TYPE_CHECKING:
    from recovery.producer import trigger

__all__ = ["__version__", "trigger"]


def __getattr__(name: str) -> Any:
    if name == "trigger":
        from recovery.producer import trigger

        return trigger
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

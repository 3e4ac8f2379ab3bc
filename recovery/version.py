"""Which version of ours this is. Imports nothing."""

from __future__ import annotations

__version__ = "0.1.0"

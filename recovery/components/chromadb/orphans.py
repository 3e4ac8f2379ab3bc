"""Folders of indexes whose collections were deleted: Chroma leaves them behind for ever."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Collection
from pathlib import Path


def find(path: Path, known: Collection[str], older_than: float = 0.0) -> dict[str, int]:
    """Those named like an index of which the database knows nothing, with their bytes.

    ``older_than``: seconds for which nothing in them may have changed.
    """
    found = {}
    before = time.time() - older_than
    with os.scandir(path) as entries:
        for entry in entries:
            is_candidate = entry.is_dir(follow_symlinks=False) and is_index_name(entry.name)
            if not is_candidate or entry.name in known:
                continue
            files = [Path(base) / name for base, _, names in os.walk(entry) for name in names]
            seen = [file.lstat() for file in files]
            newest = max([entry.stat().st_mtime, *(one.st_mtime for one in seen)])
            if newest <= before:
                found[entry.name] = sum(one.st_size for one in seen)
    return found


def is_index_name(name: str) -> bool:
    """Whether Chroma could have named a folder so."""
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False

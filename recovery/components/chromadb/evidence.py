"""What a ChromaDB can say of itself before anybody touches it. No document, no vector is read."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

from recovery.components.chromadb import database, view
from recovery.components.chromadb.api import ChromaServer, Unanswered
from recovery.components.chromadb.findings import Budget
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import TargetRefused

MOST_FILES = 200


def evidence(target: ChromaTarget, timeout: float) -> dict[str, Any]:
    """Version and names from the server, sizes and the database's own list from the directory."""
    budget = Budget(timeout)
    said: dict[str, Any] = {}
    if target.path is not None:
        said["directory"] = _directory(target, target.path, budget)
    if target.server is not None:
        said["server"] = _server(target, target.server, budget)
    return said


def _directory(target: ChromaTarget, path: Path, budget: Budget) -> dict[str, Any]:
    try:
        files = view.signature(path)
        return {
            "files": {os.path.relpath(name, path): size for name, _, size, _ in files[:MOST_FILES]},
            "file_count": len(files),
            "free_mb": shutil.disk_usage(path).free // 10**6,
            "locked_by": database.lock_holder(path),
            "database": _listing(target, path, budget),
        }
    except OSError as error:
        return {"unavailable": str(error)}


def _listing(target: ChromaTarget, path: Path, budget: Budget) -> dict[str, Any]:
    try:
        with database.opened(path, budget, immutable=True) as connection, database.in_time():
            listed = database.glance(connection, target.tenant, target.database)
    except (database.OutOfTime, sqlite3.Error) as error:
        return {"unavailable": str(error) or type(error).__name__}
    return {"collections": listed.collections, "names": listed.names[:50], "saved": listed.saved}


def _server(target: ChromaTarget, url: str, budget: Budget) -> dict[str, Any]:
    try:
        with ChromaServer(target, url, budget) as server:
            return {
                "api": server.version(),
                "collections": [collection.name for collection in server.collections()][:50],
            }
    except (TargetRefused, Unanswered) as error:
        return {"unavailable": str(error)}

"""What destructive remedies put aside before they delete or replace, on this host's disk.

One folder a recovery, with the files of the remedy and ``kept.json``, which says what they are.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recovery.errors import NothingKept

MANIFEST = "kept.json"


@dataclass(slots=True, kw_only=True)
class KeptFolder:
    """See ``recovery.strategy.Kept``."""

    recovery_id: str
    folder: Path
    facts: Mapping[str, Any] = field(default_factory=dict)

    def store(self, summary: str, **facts: Any) -> None:
        self.facts = {**self.facts, **facts, "summary": summary}
        write_durably(self.folder / MANIFEST, json.dumps(self.facts, indent=1))

    def room(self) -> int:
        return shutil.disk_usage(self.folder).free


def keep(state_dir: Path, recovery_id: str) -> KeptFolder:
    """The folder of a recovery, made or found again; raises ``NothingKept``."""
    folder = state_dir / "kept" / recovery_id
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        manifest = folder / MANIFEST
        facts = json.loads(manifest.read_text()) if manifest.exists() else {}
    except (OSError, ValueError) as error:
        raise NothingKept(f"nothing can be put aside in {folder}: {error}") from error
    return KeptFolder(recovery_id=recovery_id, folder=folder, facts=facts)


def write_durably(path: Path, text: str) -> None:
    """Replace a file in one step that survives a crash; raises ``NothingKept``."""
    draft = path.with_name(f"{path.name}.draft")
    try:
        with draft.open("w") as sink:
            sink.write(text)
            sink.flush()
            os.fsync(sink.fileno())
        draft.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise NothingKept(f"cannot write {path}: {error}") from error

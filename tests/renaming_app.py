"""The workers' app, in which an exchange of collections stands still between its two renames.

What is held can be killed there; ``HELD_AT`` names the file that says that it is.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from recovery.components.chromadb.editing import ChromaEditor
from workers.app import app

__all__ = ["app"]

_rename = ChromaEditor.rename


def _held(editor: ChromaEditor, identity: str, name: str) -> None:
    _rename(editor, identity, name)
    if ".aside." in name:
        Path(os.environ["HELD_AT"]).write_text(name)
        time.sleep(600)


ChromaEditor.rename = _held  # type: ignore[method-assign]

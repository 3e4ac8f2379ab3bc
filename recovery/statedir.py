"""Where this host's state lives: what is kept, pid files, the embedded control Redis."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def state_dir(environ: Mapping[str, str] | None = None) -> Path:
    """``$RECOVERY_STATE_DIR``, else the folder that XDG has for state. Not made here."""
    found = os.environ if environ is None else environ
    if chosen := found.get("RECOVERY_STATE_DIR"):
        return Path(chosen).absolute()
    base = found.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "recovery"

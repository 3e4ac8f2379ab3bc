"""What this host is called, and where it keeps what must outlive a process."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path


def host_name(environ: Mapping[str, str] | None = None) -> str:
    """``$RECOVERY_HOST``, else what the system is called."""
    found = os.environ if environ is None else environ
    return found.get("RECOVERY_HOST") or socket.gethostname()


def state_dir(environ: Mapping[str, str] | None = None) -> Path:
    """``$RECOVERY_STATE_DIR``, else the user's own state directory; it may not exist yet."""
    found = os.environ if environ is None else environ
    if chosen := found.get("RECOVERY_STATE_DIR"):
        return Path(chosen).absolute()
    base = found.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "recovery"

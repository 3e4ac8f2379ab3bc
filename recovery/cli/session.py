"""What every command needs: policy, control plane, one way to print and one way to fail."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import click

from recovery.errors import ControlPlaneUnavailable, RecoveryError, SetupError

if TYPE_CHECKING:
    from recovery.events import Step

P = ParamSpec("P")
R = TypeVar("R")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
by_option = click.option("--by", default=getpass.getuser, help="Your name, for the audit trail.")


class DurationType(click.ParamType[float]):
    """``30m``, ``1h``, or seconds as a number."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        from recovery.strategy import LONGEST, SHORTEST, seconds

        try:
            found = float(seconds(str(value)) if not _is_number(value) else value)  # type: ignore[arg-type]
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not SHORTEST <= found <= LONGEST:
            self.fail(f"{value!r} is no time that can be waited for", param, ctx)
        return found


DURATION = DurationType()


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn our errors into one readable line, or JSON, and their exit code."""

    @wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except RecoveryError as error:
            _fail(error, as_json=bool(kwargs.get("as_json")))
        except ModuleNotFoundError as error:
            _fail(_not_installed(error), as_json=bool(kwargs.get("as_json")))

    return guarded


def control() -> Any:
    """The control plane of this environment; nothing is connected yet.

    What the domain logs goes to standard error, out of the way of ``--json``.
    """
    from recovery import logs
    from recovery.config import Environment
    from recovery.controlplane import ControlPlane

    logs.configure("WARNING")
    return ControlPlane.connect(Environment.read())


def policy() -> Any:
    from recovery.config import current_policy

    return current_policy()


def audit_folder() -> Path:
    """Where this host keeps sealed audit files; a line says so where another host has them."""
    from recovery import audit
    from recovery.config import Environment

    here = Environment.read()
    owner = audit.known_owner(control())
    if owner not in (None, here.host):
        warn(f"note: the sealed days of the audit trail lie on {owner}")
    return audit.folder_of(policy(), here)


def warn(text: str) -> None:
    click.secho(text, fg="yellow", err=True)


def show(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def table(title: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """Print rows under a title; a line says so where there are none."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        # Half an id is of no use to whoever copies it.
        grid.add_column(column, no_wrap=column == "id", overflow="fold")
    for row in rows:
        grid.add_row(*("" if cell is None else str(cell) for cell in row))
    if rows:
        Console(width=None if sys.stdout.isatty() else 160).print(grid)
    else:
        click.echo(f"{title}: none")


def moment(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def step(seen: Step) -> str:
    """A step and its figures, as a person reads them."""
    figures = ", ".join(f"{name} {value}" for name, value in seen.figures.items())
    return f"{seen.text}: {figures}" if figures else seen.text


def step_line(seen: Step) -> str:
    planned = "would: " if seen.planned else ""
    return f"  {seen.at_seconds:6.2f} s  {planned}{step(seen)}"


def _fail(error: RecoveryError, *, as_json: bool) -> NoReturn:
    if as_json:
        show({"error": error.code, "message": error.message, "facts": error.facts})
    else:
        click.secho(f"{error.code}: {error.message}", fg="red", err=True)
        if isinstance(error, ControlPlaneUnavailable):
            warn(_where_it_should_be())
    sys.exit(error.exit_code)


def _where_it_should_be() -> str:
    from recovery.config import Environment

    here = Environment.read()
    if here.is_embedded:
        return (
            "RECOVERY_REDIS_URL is not set, so it is the one of `recovery up` with this state"
            f" directory: {here.state_dir}. Does that run, and with the same RECOVERY_STATE_DIR?"
        )
    return f"RECOVERY_REDIS_URL leads to {here.shown_control_url}"


def _not_installed(error: ModuleNotFoundError) -> SetupError:
    """Which package of an extra is missing; a module of our own would be a mistake of ours."""
    package = (error.name or "").partition(".")[0]
    if package in ("", "recovery", "workers"):
        raise error
    return SetupError(
        f"the package {package} is not installed: install llm-stack-recovery with the extras of the"
        " components in your policy, for instance [chromadb,docker,http,openwebui]"
    )


def _is_number(value: Any) -> bool:
    return str(value).replace(".", "", 1).isdigit()

"""``flower``: Celery's own view of the workers, never without a password."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from recovery.cli.session import reports_errors

REMEDY = "pip install 'llm-stack-recovery[flower]'"
PASSWORD_NAME = "flower-password"  # noqa: S105 - a file's name
COLUMNS = "name,uuid,state,kwargs,result,received,started,runtime,worker"
"""Of the list of tasks: the arguments name the component, the target and the recovery."""


@click.command()
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=5555, show_default=True)
@click.option("--user", default="recovery", show_default=True, help="Name to sign in with.")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with the password; one is made in the state directory by default.",
)
@click.option("--url-prefix", help="Path below which a proxy serves it.")
@reports_errors
def flower(
    host: str, port: int, user: str, password_file: Path | None, url_prefix: str | None
) -> None:
    """Serve Flower for the workers of all hosts; it wants a name and a password.

    \b
    Example:
      recovery flower --host 0.0.0.0 --password-file /etc/recovery/flower-password
    """
    from recovery.config import Environment
    from recovery.credentials import make_once, reveal
    from recovery.errors import SetupError

    if find_spec("flower") is None:
        raise SetupError(f"Flower is not installed: {REMEDY}")
    if password_file is None:
        kept = Environment.read().state_dir / PASSWORD_NAME
        password = make_once(kept)
        click.echo(f"sign in as {user}; the password is in {kept}")
    else:
        password = reveal(None, password_file) or ""
    _become(host, port, f"{user}:{password}", url_prefix)


def _become(host: str, port: int, pair: str, url_prefix: str | None) -> None:
    """Run Flower in our place. The password goes by the environment: arguments can be seen."""
    from recovery.errors import ConfigError

    if "," in pair or pair.count(":") != 1:
        raise ConfigError("Flower's name and password may hold neither a colon nor a comma")
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "workers.app", "flower"]
    command += [f"--address={host}", f"--port={port}", f"--tasks_columns={COLUMNS}"]
    command += [f"--url_prefix={url_prefix}"] if url_prefix else []
    os.environ["FLOWER_BASIC_AUTH"] = pair
    # Would open its API to everybody.
    os.environ.pop("FLOWER_UNAUTHENTICATED_API", None)
    os.execv(command[0], command)  # noqa: S606 - a list of ours, and no shell is wanted


COMMANDS = (flower,)

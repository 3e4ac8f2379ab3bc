"""``serve``: the HTTP side, in a process that this one becomes."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from recovery.cli.session import reports_errors

NEEDED = ("fastapi", "jinja2", "prometheus_client", "sse_starlette", "uvicorn")
REMEDY = "pip install 'llm-stack-recovery[http]'"


def missing() -> list[str]:
    """What the extra ``http`` would install and is not there."""
    return [name for name in NEEDED if find_spec(name) is None]


def command(*options: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "recovery.http", *options)


@click.command()
@click.option("--host", help="Address to listen on; beyond this machine it needs a token.")
@click.option("--port", type=click.IntRange(1, 65535), help="8787 by default.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with the token for all that changes state.",
)
@click.option(
    "--loglevel",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    help="debug adds a line for each request that only reads.",
)
@reports_errors
def serve(host: str | None, port: int | None, token_file: Path | None, loglevel: str) -> None:
    """Serve the status page, the API, /metrics and /alerts.

    \b
    Example:
      recovery serve --host 0.0.0.0 --token-file /etc/recovery/http-token
    """
    from recovery.errors import SetupError

    if lacking := missing():
        raise SetupError(f"the HTTP side is not installed: {REMEDY} ({', '.join(lacking)})")
    given = {"--host": host, "--port": port, "--token-file": token_file, "--loglevel": loglevel}
    options = [part for name, value in given.items() if value for part in (name, str(value))]
    program = command(*options)
    os.execv(program[0], program)  # noqa: S606 - a list of ours, and no shell is wanted


COMMANDS = (serve,)

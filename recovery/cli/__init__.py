"""The ``recovery`` command: everything a person does with the system."""

from __future__ import annotations

import os

import click

from recovery import __version__
from recovery.cli import (
    auditing,
    completing,
    deciding,
    flowering,
    looking,
    probing,
    recovering,
    running,
    serving,
    snapshotting,
    undoing,
)

EPILOG = """\b
Exit codes: 0 recovered, undone, not needed or sent · 1 failed · 2 bad usage or invalid event
· 3 refused · 4 awaiting approval · 5 control plane unreachable · 6 configuration error
· 7 timed out waiting · 8 something is missing on this machine.

\b
Examples:
  recovery recover --component redis --strategy reconnect --wait
  recovery status
  recovery history --last 168 --component redis
"""


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="recovery")
@click.option("--config", "config_file", metavar="FILE", help="The policy to use.")
def main(config_file: str | None) -> None:
    """Automated recovery and failover for a self-hosted LLM stack."""
    if config_file:
        os.environ["RECOVERY_CONFIG"] = config_file


for _group in (
    recovering,
    undoing,
    snapshotting,
    looking,
    probing,
    auditing,
    deciding,
    running,
    serving,
    flowering,
    completing,
):
    for _command in _group.COMMANDS:
        main.add_command(_command)

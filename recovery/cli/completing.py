"""``completion``: what a shell needs to complete our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Example:
      eval "$(recovery completion bash)"
    """
    made = get_completion_class(shell)
    root = context.find_root()
    if made is None:
        raise click.ClickException(f"no completion for {shell}")
    script = made(root.command, {}, "recovery", "_RECOVERY_COMPLETE")
    click.echo(script.source())


COMMANDS = (completion,)

"""``undo``: bring back what a recovery removed, and list what can be brought back."""

from __future__ import annotations

import sys
from typing import Any

import click

from recovery.cli import session
from recovery.cli.following import follow
from recovery.cli.recovering import tell_sent
from recovery.cli.session import DURATION, by_option, json_option, moment, reports_errors

_COLUMNS = ("id", "target", "what", "host", "MB", "until (UTC)", "state")


@click.command()
@click.argument("recovery_id", required=False)
@click.option("--list", "as_list", is_flag=True, help="Show what is kept, on all hosts.")
@click.option("--overwrite", is_flag=True, help="Replace newer data, which is kept first.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; change nothing.")
@click.option("--reason", help="Why, for the audit trail.")
@click.option("--wait/--no-wait", default=False, help="Follow it to its end.")
@click.option("--timeout", type=DURATION, default=60.0, help="How long to wait.")
@by_option
@json_option
@reports_errors
def undo(
    recovery_id: str | None,
    as_list: bool,
    wait: bool,
    timeout: float,
    as_json: bool,
    **said: Any,
) -> None:
    """Bring back what a recovery removed; a unique beginning of its id is enough.

    \b
    Example:
      recovery undo 3f2a --wait
    """
    from recovery import holdings, producer
    from recovery.events import Source

    if as_list == bool(recovery_id):
        raise click.UsageError("name a recovery, or ask for --list")
    control = session.control()
    if recovery_id is None:
        _list(holdings.held(control), as_json=as_json)
        return
    kept = holdings.find(control, recovery_id)
    identity = producer.undo(kept, source=Source.CLI, **said)
    if wait:
        sys.exit(follow(identity, timeout, as_json=as_json))
    tell_sent(identity, as_json=as_json)


def _list(entries: Any, *, as_json: bool) -> None:
    from dataclasses import asdict

    from recovery.holdings import can_be_undone

    known = [(entry, can_be_undone(entry)) for entry in entries]
    if as_json:
        session.show([{**asdict(entry), "can_be_undone": can} for entry, can in known])
        return
    session.table("Kept", _COLUMNS, [_row(entry, can) for entry, can in known])


def _row(entry: Any, can_be_undone: bool) -> tuple[Any, ...]:
    is_to_read = entry.state.value == "available" and not can_be_undone
    return (
        entry.recovery_id,
        entry.target,
        entry.summary,
        entry.host,
        "?" if entry.bytes is None else f"{entry.bytes / 1e6:.1f}",
        moment(entry.expires_ms / 1000),
        "to read only" if is_to_read else entry.state.value,
    )


COMMANDS = (undo,)

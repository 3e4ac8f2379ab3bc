"""One recovery whole, as a person reads it: why, who decided, each step, what probes found."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from recovery.cli import session
from recovery.cli.following import outcome_text
from recovery.cli.session import moment

if TYPE_CHECKING:
    from recovery.controlplane import ControlPlane
    from recovery.events import Step
    from recovery.records import Recovery

_EVER = datetime(1970, 1, 1, tzinfo=UTC)


def show_recovery(control: ControlPlane, identity: str, *, as_json: bool) -> None:
    """Of a recovery all that is known; of what became none, its line of the audit trail.

    Raises ``UnknownRecovery`` where there is neither.
    """
    from recovery import evidence, records
    from recovery.errors import UnknownRecovery

    try:
        record = records.load(control, records.find(control, identity))
    except UnknownRecovery:
        entry = _in_the_trail(control, identity)
        if entry is None:
            raise
        if as_json:
            session.show(entry)
        else:
            _tell(entry)
        return
    steps = records.steps(control, record.id)
    gathered = evidence.read(control, record.id)
    if as_json:
        session.show(_as_dict(record, steps, gathered))
        return
    for line in _lines(record, steps):
        click.echo(line)
    if gathered and "target" in gathered:
        click.echo("evidence:")
        _tell(gathered["target"], indent="  ")


def _in_the_trail(control: ControlPlane, identity: str) -> dict[str, Any] | None:
    """What was refused, a snapshot, a note: it has an id and an entry, and no record."""
    from recovery import audit

    entries = audit.history(control, since=_EVER, folder=session.audit_folder())
    found = None
    for entry in entries:
        if str(entry.fields.get("id", "")).startswith(identity):
            found = entry.as_dict()
    return found


def _as_dict(
    record: Recovery, steps: tuple[Step, ...], gathered: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "id": record.id,
        "event": record.event.as_dict(),
        "strategy": record.strategy,
        "state": record.state.value,
        "level": record.level,
        "decision": record.decision,
        "decided_by": record.decided_by,
        "steps": [step.as_dict() for step in steps],
        "outcome": record.outcome.as_dict() if record.outcome else None,
        "evidence": gathered,
    }


def _lines(record: Recovery, steps: tuple[Step, ...]) -> list[str]:
    event = record.event
    asked = f"by {event.source.value}" + (f", {event.by}" if event.by else "")
    why = event.failure_type or event.reason or f"undo of {event.undo_of}"
    ended = record.outcome.result if record.outcome else record.state
    lines = [
        f"{record.target} {record.strategy}: {ended.value}",
        f"  id: {record.id}",
        f"  asked for: {moment(record.received_ms / 1000)} UTC {asked}: {why}",
    ]
    if event.reason and why != event.reason:
        lines.append(f"  reason: {event.reason}")
    if record.decision:
        said = f": {record.decided_why}" if record.decided_why else ""
        lines.append(f"  {record.decision} by {record.decided_by}{said}")
    lines += [session.step_line(step) for step in steps]
    if record.outcome:
        lines.append(outcome_text(record.outcome))
    return lines


def _tell(facts: dict[str, Any], indent: str = "") -> None:
    import yaml

    for line in yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=120).splitlines():
        click.echo(f"{indent}{line}")

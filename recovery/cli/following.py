"""Following one recovery to its end, for every command that has ``--wait``."""

from __future__ import annotations

from typing import Any

import click

from recovery.cli import session

REFUSED, AWAITING, TIMED_OUT = 3, 4, 7


def follow(identity: str, timeout: float, *, as_json: bool, is_approved: bool = False) -> int:
    """Show each step as it happens, then the outcome; returns the exit code."""
    from recovery import records
    from recovery.events import Decision, State, Step

    control = session.control()
    last: Any = None
    for seen in records.follow(control, identity, timeout, is_approved=is_approved):
        if isinstance(seen, Step):
            if not as_json:
                click.echo(session.step_line(seen))
            continue
        last = seen
        if not as_json and isinstance(seen, records.Recovery):
            click.echo(f"{seen.target} {seen.strategy}: {seen.state.value}")
    if isinstance(last, Decision):
        again = f", again in {last.retry_after:.0f} s" if last.retry_after else ""
        tell(last.as_dict(), f"refused: {last.reason}: {last.detail}{again}", as_json=as_json)
        return REFUSED
    if last is None or last.state not in (State.CONCLUDED, State.AWAITING_APPROVAL):
        tell({"id": identity, "error": "timed_out"}, "timed out waiting", as_json=as_json)
        return TIMED_OUT
    if last.state is State.AWAITING_APPROVAL and is_approved:
        text = "approved, and not started yet: it starts when the gate opens (recovery status)"
        tell({"id": identity, "error": "timed_out"}, text, as_json=as_json)
        return TIMED_OUT
    if last.state is State.AWAITING_APPROVAL:
        text = f"awaiting approval: recovery approve {identity}"
        tell({"id": identity, "state": last.state.value}, text, as_json=as_json)
        return AWAITING
    outcome = last.outcome
    tell({"id": identity, **outcome.as_dict()}, outcome_text(outcome), as_json=as_json)
    return 0 if outcome.result.is_good and outcome.error is None else 1


def outcome_text(outcome: Any) -> str:
    tried = "1 attempt" if outcome.attempts == 1 else f"{outcome.attempts} attempts"
    lines = [f"{outcome.result.value} after {outcome.duration:.2f} s, {tried}"]
    for name, report in (("before", outcome.before), ("after", outcome.after)):
        if report is not None:
            lines.append(f"  {name}: {report.failure_type or 'healthy'}: {report.summary}")
    if outcome.detail:
        lines.append(f"  {outcome.error}: {outcome.detail}")
    return "\n".join(lines)


def tell(facts: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        session.show(facts)
    else:
        click.echo(text)

"""Commands of people who decide: approve, deny, disable, enable."""

from __future__ import annotations

import sys
from typing import Any

import click

from recovery.cli import session
from recovery.cli.following import follow
from recovery.cli.session import DURATION, by_option, json_option, moment, reports_errors

APPROVAL_COLUMNS = ("id", "target", "strategy", "why", "by", "expires (UTC)")


@click.command()
@json_option
@reports_errors
def approvals(as_json: bool) -> None:
    """List the recoveries that wait for a person.

    \b
    Example:
      recovery approvals
    """
    from recovery.approvals import pending

    waiting = pending(session.control())
    if as_json:
        session.show([approval.as_dict() for approval in waiting])
        return
    session.table("Pending Approvals", APPROVAL_COLUMNS, [approval_row(a) for a in waiting])


def approval_row(approval: Any) -> tuple[Any, ...]:
    why = approval.failure_type or approval.reason
    if approval.approved_by:
        why = f"{why} (approved by {approval.approved_by}; the gate is closed yet)"
    return (
        approval.id,
        approval.target,
        approval.strategy,
        why,
        approval.asked_by,
        moment(approval.expires.timestamp()),
    )


@click.command()
@click.argument("recovery_id")
@click.option("--reason", default="", help="Why, for the audit trail.")
@click.option("--force", is_flag=True, help="Pass cooldown and limit; needs --reason.")
@click.option("--wait/--no-wait", default=False, help="Follow it to its end.")
@click.option("--timeout", type=DURATION, default=60.0, help="How long to wait.")
@by_option
@json_option
@reports_errors
def approve(  # noqa: PLR0917 - click passes by name
    recovery_id: str,
    reason: str,
    force: bool,
    wait: bool,
    timeout: float,
    by: str,
    as_json: bool,
) -> None:
    """Let a waiting recovery run; a unique beginning of its id is enough.

    \b
    Example:
      recovery approve 3f2a --reason "seen it, go" --wait
    """
    from recovery import approvals as waiting
    from recovery import producer

    control = session.control()
    identity = waiting.find(control, recovery_id)
    waiting.approve(control, session.policy(), identity, by=by, reason=reason, force=force)
    producer.follow_approval(identity)
    if wait:
        sys.exit(follow(identity, timeout, as_json=as_json, is_approved=True))
    _tell({"id": identity, "decision": "approved"}, f"approved: {identity}", as_json=as_json)


@click.command()
@click.argument("recovery_id")
@click.option("--reason", default="", help="Why, for the audit trail.")
@by_option
@json_option
@reports_errors
def deny(recovery_id: str, reason: str, by: str, as_json: bool) -> None:
    """End a waiting recovery without running it.

    While the target fails in the same way nothing is done about it for an hour; another failure, or
    the same one after the target was healthy, asks anew.

    \b
    Example:
      recovery deny 3f2a --reason "maintenance"
    """
    from recovery import approvals as waiting

    control = session.control()
    identity = waiting.find(control, recovery_id)
    waiting.deny(control, session.policy(), identity, by=by, reason=reason)
    _tell({"id": identity, "decision": "denied"}, f"denied: {identity}", as_json=as_json)


@click.command()
@click.option("--component", help="Only this component.")
@click.option("--target", help="Only this target, as redis/cache.")
@click.option("--duration", type=DURATION, default=3600.0, help="How long, as 30m or 1h.")
@click.option("--reason", default="", help="Why, for everybody who wonders.")
@by_option
@json_option
@reports_errors
def disable(  # noqa: PLR0917 - click passes by name
    component: str | None, target: str | None, duration: float, reason: str, by: str, as_json: bool
) -> None:
    """Refuse recoveries for a while; what already runs is finished.

    \b
    Example:
      recovery disable --component redis --duration 30m
    """
    from recovery import disabling

    policy, control = session.policy(), session.control()
    scope = disabling.scope_of(policy, component, target)
    disabling.disable(control, policy, scope, by=by, reason=reason, seconds=duration)
    _tell({"scope": scope, "seconds": duration}, f"disabled: {scope}", as_json=as_json)


@click.command()
@click.option("--component", help="Only this component.")
@click.option("--target", help="Only this target, as redis/cache.")
@click.option("--reason", default="", help="Why, for the audit trail.")
@by_option
@json_option
@reports_errors
def enable(component: str | None, target: str | None, reason: str, by: str, as_json: bool) -> None:
    """Take recoveries up again.

    \b
    Example:
      recovery enable --component redis
    """
    from recovery import disabling

    policy, control = session.policy(), session.control()
    scope = disabling.scope_of(policy, component, target)
    was_disabled = disabling.enable(control, policy, scope, by=by, reason=reason)
    text = f"enabled: {scope}" if was_disabled else f"{scope} was not disabled"
    _tell({"scope": scope, "was_disabled": was_disabled}, text, as_json=as_json)


def _tell(facts: dict[str, object], text: str, *, as_json: bool) -> None:
    if as_json:
        session.show(facts)
    else:
        click.echo(text)


COMMANDS = (approvals, approve, deny, disable, enable)

"""``recover`` and ``test``: run a remedy, or see whether it could run."""

from __future__ import annotations

import json
import sys
from typing import Any
from uuid import uuid4

import click

from recovery.cli import session
from recovery.cli.following import follow, tell
from recovery.cli.session import DURATION, by_option, json_option, reports_errors


def _read_context(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        context = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="--context") from error
    if not isinstance(context, dict):
        raise click.BadParameter("must be a JSON object", param_hint="--context")
    return context


@click.command()
@click.option("--component", required=True, help="redis, chromadb, openwebui or system.")
@click.option("--strategy", help="The remedy; without it the failure type selects one.")
@click.option("--target", help="One of the component's targets.")
@click.option("--failure-type", help="What is broken: the remedy whose turn it is runs.")
@click.option("--context", "context_json", help="More about the event, as a JSON object.")
@click.option("--require-approval", is_flag=True, help="Wait for `recovery approve`.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; change nothing.")
@click.option("--force", is_flag=True, help="Pass cooldown and limit; needs --reason.")
@click.option("--reason", help="Why, for the audit trail.")
@click.option("--wait/--no-wait", default=False, help="Follow it to its end.")
@click.option("--timeout", type=DURATION, default=60.0, help="How long to wait.")
@by_option
@json_option
@reports_errors
def recover(
    component: str,
    context_json: str | None,
    wait: bool,
    timeout: float,
    as_json: bool,
    **said: Any,
) -> None:
    """Run a recovery now, through the same gate as every automatic one.

    \b
    Example:
      recovery recover --component redis --strategy reconnect --wait
    """
    from recovery import messages, producer
    from recovery.events import Source

    said = {name: value for name, value in said.items() if value}
    context = _read_context(context_json)
    message = {**said, "component": component, "context": context, "source": "cli"}
    event = messages.read_event(str(uuid4()), message, session.policy())
    if event.strategy:
        messages.check_scope(event, session.policy(), event.strategy)
    identity = producer.trigger(component, source=Source.CLI, context=context, **said)
    if wait:
        sys.exit(follow(identity, timeout, as_json=as_json))
    tell_sent(identity, as_json=as_json)


def tell_sent(identity: str, *, as_json: bool) -> None:
    text = f"sent: {identity}\nfollow it with: recovery history {identity}"
    tell({"id": identity}, text, as_json=as_json)


@click.command()
@click.option("--component", required=True, help="redis, chromadb, openwebui or system.")
@click.option("--strategy", required=True, help="The strategy to check.")
@click.option("--target", help="The target to probe.")
@click.option("--probe/--no-probe", default=True, help="Probe the target from here.")
@json_option
@reports_errors
def test(component: str, strategy: str, target: str | None, probe: bool, as_json: bool) -> None:
    """Check that a strategy is valid and could run; changes nothing.

    \b
    Example:
      recovery test --component redis --strategy reconnect
    """
    from recovery.finding import find_component, find_probe
    from recovery.memory import reminded
    from recovery.messages import target_of

    configured = session.policy().strategy(component, strategy)
    ref = target_of(session.policy(), component, target)
    model = reminded(session.control(), session.policy(), ref)
    facts: dict[str, Any] = {
        "strategy": configured.declaration.full_name,
        "target": str(ref),
        "available": configured.declaration.is_available,
        "obstacle": configured.obstacle,
        "auto_trigger": configured.auto_trigger,
        "requires_approval": configured.requires_approval,
        "timeout_seconds": configured.timeout_seconds,
        "conditions": list(configured.conditions),
    }
    if probe and configured.declaration.is_available:
        longest = find_component(component).probe_seconds
        facts["probe"] = find_probe(component)(model, longest).as_dict()
    if as_json:
        session.show(facts)
    else:
        for name, value in facts.items():
            click.echo(f"{name.replace('_', ' ')}: {_readable(value)}")
    sys.exit(1 if facts["obstacle"] else 0)


def _readable(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(value) or "none"
        case {"summary": summary}:
            return f"{value['failure_type'] or 'healthy'}: {summary}"
        case _:
            return str(value)


COMMANDS = (recover, test)

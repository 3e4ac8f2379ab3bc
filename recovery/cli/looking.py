"""Commands that only read: of the system's state, its workers, its routes and its policy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from recovery.cli import session
from recovery.cli.deciding import APPROVAL_COLUMNS, approval_row
from recovery.cli.session import json_option, moment, reports_errors
from recovery.cli.showing import show_recovery


@click.command()
@json_option
@reports_errors
def status(as_json: bool) -> None:
    """Show totals, cooldowns, degraded modes, approvals and recent recoveries.

    \b
    Example:
      recovery status --json
    """
    from recovery.overview import overview

    now = overview(session.control(), session.policy())
    if as_json:
        session.show(now.as_dict())
        return
    rate = "-" if now.success_rate is None else f"{now.success_rate:.0%}"
    click.echo(
        f"Recoveries {now.recoveries}: {now.recovered} recovered, {now.failed} failed, "
        f"success rate {rate}; {now.refused} events refused"
    )
    cooling = [(t.target, f"{t.cooldown_seconds:.0f} s") for t in now.targets if t.cooldown_seconds]
    session.table("Cooldown Status", ("target", "left"), cooling)
    modes = [(m.target, m.mode, ", ".join(m.unavailable)) for m in now.degraded]
    session.table("Degraded Modes", ("target", "mode", "unavailable"), modes)
    session.table("Pending Approvals", APPROVAL_COLUMNS, [approval_row(a) for a in now.pending])
    off = [(d.scope, d.by, d.reason, d.seconds_left) for d in now.disabled]
    session.table("Disabled", ("scope", "by", "reason", "seconds left"), off)
    targets = [
        (
            t.target,
            *_seen(t.seen),
            t.level,
            f"{t.attempts_in_hour}/{t.max_attempts_per_hour}",
            _phase(t),
            t.holder,
        )
        for t in now.targets
    ]
    columns = ("target", "state", "found", "level", "attempts/h", "phase", "holder")
    session.table("Targets", columns, targets)
    session.table("Recent Recoveries", _COLUMNS, [_row(entry) for entry in now.recent])


def _phase(state: Any) -> str | None:
    """With how far it is, where the remedy says so."""
    if state.percent is None:
        return str(state.phase) if state.phase else None
    return f"{state.phase}, {state.percent} %"


def _seen(found: Any) -> tuple[str, str]:
    """What the last probes say of a target, and why nothing is done about it where that is so."""
    if found is None:
        return "not probed", ""
    said = [found.failure_type, found.summary] if found.failure_type else [found.summary]
    if found.refused:
        until = f" until {moment(found.retry_ms / 1000)}" if found.retry_ms else ""
        said.append(f"held{until}: {found.refused}")
    return found.state.value, ", ".join(part for part in said if part)


_COLUMNS = ("time (UTC)", "target", "strategy", "result", "seconds", "why", "before → after", "id")


def _row(entry: Any) -> tuple[Any, ...]:
    facts = entry.fields
    found = " → ".join(facts[n]["found"] for n in ("before", "after") if n in facts)
    undo = f"undo of {facts['undo_of'][:8]}" if "undo_of" in facts else None
    why = facts.get("error") or facts.get("reason") or facts.get("failure") or undo
    if facts.get("result") in ("disabled", "enabled"):
        why = f"by {facts.get('by')}" + (f": {why}" if why else "")
    return (
        entry.at.strftime("%Y-%m-%d %H:%M:%S"),
        facts.get("target"),
        facts.get("strategy"),
        facts.get("result"),
        facts.get("seconds"),
        why,
        found,
        facts.get("id"),
    )


@click.command()
@click.argument("recovery_id", required=False)
@click.option(
    "--last", type=click.FloatRange(min=0, min_open=True), default=24.0, help="Hours to look back."
)
@click.option("--component", help="Only this component.")
@click.option("--target", help="Only this target, as redis/cache.")
@json_option
@reports_errors
def history(
    recovery_id: str | None, last: float, component: str | None, target: str | None, as_json: bool
) -> None:
    """Show the audit trail, or one recovery whole; a unique beginning of its id is enough.

    \b
    Example:
      recovery history --last 168 --component redis
      recovery history 3f2a
    """
    from recovery import audit
    from recovery.errors import AuditDamaged
    from recovery.events import TargetRef
    from recovery.finding import find_component

    if recovery_id:
        show_recovery(session.control(), recovery_id, as_json=as_json)
        return
    if component:
        find_component(component)
    if target:
        target = str(TargetRef.named(target, component))
    found = audit.history(
        session.control(),
        since=audit.last_hours(last),
        component=component,
        target=target,
        folder=session.audit_folder(),
    )
    entries: list[audit.AuditEntry] = []
    damage = None
    try:
        entries.extend(found)
    except AuditDamaged as error:
        damage = error
    entries.sort(key=lambda entry: entry.at)
    if as_json:
        session.show([entry.as_dict() for entry in entries])
    else:
        session.table(f"Last {last:g} hours", _COLUMNS, [_row(entry) for entry in entries])
    if damage is not None:
        session.warn(f"{damage.message}; see recovery audit verify")
        sys.exit(damage.exit_code)


@click.command()
@json_option
@reports_errors
def metrics(as_json: bool) -> None:
    """Show counts, success rates and durations; as JSON also every series of /metrics.

    \b
    Example:
      recovery metrics --json
    """
    from recovery import series
    from recovery.config import Environment
    from recovery.measurement import measure

    measured = measure(session.control(), session.policy(), Environment.read())
    now = measured.counted
    if as_json:
        families = series.families(measured, session.policy())
        session.show({**_summary(now), "series": {f.name: f.as_dicts() for f in families}})
        return
    rows = [
        (
            f"{f.component}.{f.strategy}",
            f.runs,
            f"{f.success_rate:.0%}" if f.success_rate is not None else "-",
            f"{f.average_seconds:.3f}" if f.average_seconds is not None else "-",
            f.quantile_seconds(0.5),
            f.quantile_seconds(0.95),
        )
        for f in now.strategies
    ]
    columns = ("strategy", "runs", "success rate", "average s", "half below s", "95 % below s")
    session.table("Recoveries", columns, rows)


def _summary(now: Any) -> dict[str, Any]:
    return {
        "infra_recovery_attempts_total": [
            {"component": f.component, "strategy": f.strategy, **f.results} for f in now.strategies
        ],
        "infra_recovery_success_total": now.recovered,
        "infra_recovery_duration_seconds": [
            {
                "component": f.component,
                "strategy": f.strategy,
                "average": f.average_seconds,
                "p50_below": f.quantile_seconds(0.5),
                "p95_below": f.quantile_seconds(0.95),
            }
            for f in now.strategies
        ],
        "success_rate": now.success_rate,
    }


@click.command()
@json_option
@click.option("--alive", metavar="NODE", help="Say nothing; end with 1 unless this one lives.")
@reports_errors
def workers(as_json: bool, alive: str | None) -> None:
    """Show the workers of all hosts, and the queues that nobody consumes.

    \b
    Example:
      recovery workers --json
      recovery workers --alive redis@web-1
    """
    from recovery import places, registry

    seen = registry.workers(session.control())
    if alive is not None:
        node = alive if "@" in alive else f"{alive}@{places.host_name()}"
        sys.exit(0 if any(one.is_alive for one in seen if one.worker.node == node) else 1)
    nobodys = registry.unconsumed(registry.queues_of(session.policy()), seen)
    if as_json:
        session.show({"workers": [s.as_dict() for s in seen], "unconsumed_queues": list(nobodys)})
        return
    rows = [
        (
            one.worker.node,
            "alive" if one.is_alive else "dead",
            f"{one.age:.0f} s",
            f"{one.worker.active}/{one.worker.concurrency}",
            one.worker.pid,
            one.worker.version,
            ", ".join(one.worker.queues),
        )
        for one in seen
    ]
    columns = ("node", "state", "seen", "active", "pid", "version", "queues")
    session.table("Workers", columns, rows)
    click.echo(f"Nobody consumes: {', '.join(nobodys) or 'none'}")


@click.command()
@json_option
@reports_errors
def routes(as_json: bool) -> None:
    """Show by which road applications reach each Open WebUI, and with which model.

    \b
    Example:
      recovery routes --json
    """
    from recovery import routing

    found = routing.routes(session.control())
    if as_json:
        session.show({target: route.shown() for target, route in found.items()})
        return
    rows = [
        (
            target,
            route.road.value,
            route.model or "-",
            "yes" if route.is_home else "no",
            moment(route.since / 1000),
            route.token_kind.value if route.token_kind else "none",
            moment(route.token_expires) if route.token_expires else "-",
        )
        for target, route in found.items()
    ]
    columns = ("target", "road", "model", "as the policy wants", "since", "token", "ends")
    session.table("Routes", columns, rows)


@click.group()
def config() -> None:
    """Check and show the policy."""


@config.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@reports_errors
def check(file: Path | None) -> None:
    """Check a policy file; say every problem with its line.

    \b
    Example:
      recovery config check recovery_config.yml
    """
    from recovery.config import load_policy, warnings

    loaded = load_policy(file)
    for warning in warnings(loaded):
        click.echo(f"note: {warning}")
    click.echo(f"{loaded.file}: ok, {len(loaded.target_refs())} targets")


@config.command(name="show")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@json_option
@reports_errors
def show_config(file: Path | None, as_json: bool) -> None:
    """Show the effective policy, defaults included, secrets masked.

    \b
    Example:
      recovery config show --json
    """
    import yaml

    from recovery.config import effective, load_policy

    values = effective(load_policy(file))
    if as_json:
        session.show(values)
    else:
        click.echo(yaml.safe_dump(values, sort_keys=False))


@config.command()
@reports_errors
def schema() -> None:
    """Print the JSON Schema of the policy, for editors.

    \b
    Example:
      recovery config schema > recovery_config.schema.json
    """
    from recovery.config import json_schema

    session.show(json_schema())


@config.command(name="secret-key")
@reports_errors
def secret_key() -> None:
    """Print a new key for RECOVERY_SECRET_KEY, which encrypts tokens at rest.

    \b
    Example:
      recovery config secret-key > /etc/recovery/secret.key
    """
    from recovery import encryption

    click.echo(encryption.new_key())


COMMANDS = (status, history, metrics, workers, routes, config)

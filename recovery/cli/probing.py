"""The command that looks at targets now: ``probe``. Changes nothing and tells the stack nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click

from recovery.cli import session
from recovery.cli.session import json_option, reports_errors

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.controlplane import ControlPlane
    from recovery.events import TargetRef

AT_ONCE = 16
UNHEALTHY = 1


@click.command()
@click.argument("targets", nargs=-1)
@click.option("--deep", is_flag=True, help="Look at everything that the probe can see.")
@json_option
@reports_errors
def probe(targets: tuple[str, ...], deep: bool, as_json: bool) -> None:
    """Probe targets now, from this host: those named, or all that can be seen from here.

    A component that has no target "default" stands for all of its targets.

    Ends with 0 where all are healthy, with 1 where one is not. Needs no control plane.

    \b
    Example:
      recovery probe redis/cache --deep
    """
    from recovery import logs

    logs.configure("ERROR")
    policy = session.policy()
    chosen = [ref for name in targets for ref in _known(policy, name)] or _seen_from_here(policy)
    rows = _probe(session.control(), policy, chosen, deep=deep)
    if as_json:
        session.show(rows)
    else:
        shown = [
            (
                row["target"],
                "healthy" if row["healthy"] else row["failure_type"],
                row["latency_ms"],
                row["summary"],
            )
            for row in rows
        ]
        session.table("Probes", ("target", "finds", "ms", "summary"), shown)
    sys.exit(0 if all(row["healthy"] for row in rows) else UNHEALTHY)


def _known(policy: Policy, name: str) -> list[TargetRef]:
    """Raises ``InvalidEvent`` for what is not configured or has no probe."""
    from recovery.events import TargetRef
    from recovery.finding import find_probe

    ref = TargetRef.parse(name)
    found = [one for one in policy.target_refs() if one.component == ref.component]
    if ref in found or "/" in name or not found:
        policy.target(ref)
        found = [ref]
    find_probe(ref.component)
    return found


def _seen_from_here(policy: Policy) -> list[TargetRef]:
    from recovery.finding import find_component

    return [
        ref
        for ref in policy.target_refs()
        if find_component(ref.component).probe and policy.target(ref).host in (None, policy.host)
    ]


def _probe(
    control: ControlPlane, policy: Policy, chosen: Sequence[TargetRef], *, deep: bool
) -> list[dict[str, Any]]:
    from recovery import probing
    from recovery.observations import Depth

    depth = Depth.DEEP if deep else Depth.LIGHT

    def look(ref: TargetRef) -> dict[str, Any]:
        report, latency_ms = probing.probe(control, policy, ref, depth)
        return {"target": str(ref), **report.as_dict(), "latency_ms": round(latency_ms, 3)}

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(look, chosen))


COMMANDS = (probe,)

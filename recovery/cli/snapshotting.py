"""``snapshot`` and ``snapshots``: take one now, and list what there is."""

from __future__ import annotations

import sys
from typing import Any

import click

from recovery.cli import session
from recovery.cli.following import TIMED_OUT, tell
from recovery.cli.session import DURATION, by_option, json_option, reports_errors

_COLUMNS = ("name", "target", "host", "records", "collections", "MB", "how", "Chroma")


@click.command()
@click.argument("component")
@click.option("--target", help="One of the component's targets.")
@click.option("--method", type=click.Choice(["quiesce", "stop"]), help="Not as the policy says.")
@click.option("--wait/--no-wait", default=True, help="Wait until it is verified.")
@click.option("--timeout", type=DURATION, default=900.0, help="How long to wait.")
@by_option
@json_option
@reports_errors
def snapshot(component: str, target: str | None, wait: bool, as_json: bool, **said: Any) -> None:
    """Take a snapshot now, on the host that has the directory, and verify it.

    \b
    Example:
      recovery snapshot chromadb --target default
    """
    from recovery import producer, snapshots

    policy, timeout = session.policy(), said.pop("timeout")
    ref = snapshots.ref_of(policy, component, target)
    # Celery subscribes to an answer first, and tries that for twenty seconds.
    session.control().now_ms()
    identity = producer.take_snapshot(policy, ref, **said)
    if not wait:
        tell({"id": identity}, "asked for; see: recovery snapshots", as_json=as_json)
        return
    answer = producer.await_result(identity, timeout)
    if answer is None:
        tell({"id": identity, "error": "timed_out"}, "timed out waiting", as_json=as_json)
        sys.exit(TIMED_OUT)
    tell(answer, _sentence(answer), as_json=as_json)
    sys.exit(1 if "error" in answer else 0)


@click.command()
@click.option("--target", help="Only those of one target.")
@json_option
@reports_errors
def snapshots(target: str | None, as_json: bool) -> None:
    """List the verified snapshots on all hosts, newest first.

    \b
    Example:
      recovery snapshots --target default
    """
    from recovery.snapshots import listed

    found = [
        one
        for one in listed(session.control())
        if target in (None, one.target, one.target.partition("/")[2])
    ]
    if as_json:
        session.show([one.as_dict() for one in found])
        return
    session.table("Snapshots", _COLUMNS, [_row(one) for one in found])


def _row(one: Any) -> tuple[Any, ...]:
    size = f"{one.bytes / 1e6:.1f}"
    return (
        one.name,
        one.target,
        one.host,
        one.records,
        one.collections,
        size,
        one.method,
        one.chroma,
    )


def _sentence(answer: dict[str, Any]) -> str:
    if "error" in answer:
        return f"{answer['error']}: {answer['message']}"
    return (
        f"{answer['name']}: {answer['records']} records of {answer['collections']} collections,"
        f" {answer['bytes'] / 1e6:.1f} MB on {answer['host']}, opened and read by Chroma"
        f" {answer['chroma']}"
    )


COMMANDS = (snapshot, snapshots)

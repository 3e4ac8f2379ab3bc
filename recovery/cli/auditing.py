"""Commands of the audit trail: ``audit verify``, ``audit export``, ``audit seal``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import click

from recovery.cli import session
from recovery.cli.session import json_option, reports_errors

_MOMENTS = ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S")
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_REFUSED = 3


@click.group()
def audit() -> None:
    """Prove, export and seal the audit trail."""


@audit.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@json_option
@reports_errors
def verify(folder: Path | None, as_json: bool) -> None:
    """Prove that no entry is missing or changed; exit 1 says what is.

    With FOLDER a copy of the files is proved alone, without the control Redis.

    \b
    Example:
      recovery audit verify --json
    """
    from recovery import audit as trail

    if folder is None:
        verdict = trail.verify(_own_folder(), session.control())
    else:
        verdict = trail.verify(_existing(folder))
    if as_json:
        session.show(verdict.as_dict())
    else:
        for finding in verdict.findings:
            click.echo(f"{finding.kind}: {finding.file or 'the trail'}: {finding.detail}")
        word = "ok" if verdict.is_whole else f"{len(verdict.findings)} findings"
        click.echo(
            f"{word}: {verdict.files} files with {verdict.entries} entries, "
            f"{verdict.waiting} more in the control Redis"
        )
    sys.exit(0 if verdict.is_whole else 1)


@audit.command()
@click.option("--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl")
@click.option("--since", type=click.DateTime(_MOMENTS), help="From this UTC time on.")
@click.option("--until", type=click.DateTime(_MOMENTS), help="Before this UTC time.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="A file to write.")
@click.option("--component", help="Only this component.")
@click.option("--target", help="Only this target, as redis/cache.")
@reports_errors
def export(  # noqa: PLR0917 - click passes by name
    form: str,
    since: datetime | None,
    until: datetime | None,
    output: Path | None,
    component: str | None,
    target: str | None,
) -> None:
    """Write every entry of the trail, oldest first, as JSON lines or CSV.

    \b
    Example:
      recovery audit export --format csv --since 2025-01-01 --until 2025-02-01 --output january.csv
    """
    from recovery import audit as trail

    entries = trail.history(
        session.control(),
        since=since.replace(tzinfo=UTC) if since else _BEGINNING,
        until=until.replace(tzinfo=UTC) if until else None,
        component=component,
        target=target,
        folder=session.audit_folder(),
    )
    with _sink(output) as sink:
        count = trail.export(entries, sink, trail.Format(form))
    if output is not None:
        click.echo(f"{output}: {count} entries")


@audit.command()
@click.option("--take-over", is_flag=True, help="Seal on this host from now on.")
@json_option
@reports_errors
def seal(take_over: bool, as_json: bool) -> None:
    """Move closed UTC days into sealed files now; the worker does it every hour.

    \b
    Example:
      recovery audit seal
    """
    from recovery import audit as trail
    from recovery.config import Environment

    here, policy = Environment.read(), session.policy()
    report = trail.seal(
        session.control(),
        trail.folder_of(policy, here),
        policy.audit,
        here.host,
        take_over=take_over,
        seconds=float("inf"),
    )
    if as_json:
        session.show(report.as_dict())
    else:
        click.echo(_sentence(report))
        for text in report.lost:
            session.warn(text)
    sys.exit(0 if report.sealing is trail.Sealing.DONE else _REFUSED)


def _sentence(report: Any) -> str:
    if report.sealing == "elsewhere":
        return f"the sealed files lie on {report.owner}; --take-over goes on here"
    if report.sealing == "busy":
        return "another process works on the files at the moment"
    removed = f"; removed {', '.join(report.removed)}" if report.removed else ""
    return f"{report.moved} entries sealed into {', '.join(report.files) or 'no new file'}{removed}"


def _own_folder() -> Path:
    """Raises ``SetupError`` where another host has the files: nothing could be proved here."""
    from recovery import audit as trail
    from recovery.config import Environment
    from recovery.errors import SetupError

    here = Environment.read()
    owner = trail.known_owner(session.control())
    if owner not in (None, here.host):
        raise SetupError(f"the sealed files lie on {owner}: run it there")
    return trail.folder_of(session.policy(), here)


def _existing(folder: Path) -> Path:
    from recovery.audit import chain
    from recovery.errors import SetupError

    if not chain.paths(folder):
        raise SetupError(f"{folder} holds no audit file")
    return folder


@contextmanager
def _sink(output: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that has its name only once it is complete."""
    from recovery.errors import AuditDamaged, SetupError

    if output is None:
        yield sys.stdout
        return
    draft = output.with_name(f"{output.name}.draft")
    try:
        with draft.open("w", newline="") as sink:
            try:
                yield sink
            except AuditDamaged:
                draft.replace(output)
                raise
        draft.replace(output)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise SetupError(f"cannot write {output}: {error}") from error


COMMANDS = (audit,)

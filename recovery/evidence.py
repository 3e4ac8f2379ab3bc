"""What the target looked like before anybody touched it, kept beside the audit entry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import structlog

from recovery.controlplane import reachable
from recovery.errors import ControlPlaneUnavailable, RemedyError
from recovery.finding import find_evidence
from recovery.text import plain

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.controlplane import ControlPlane
    from recovery.events import ProbeReport
    from recovery.records import Recovery

MAX_SECONDS = 0.5
MAX_BYTES = 32 * 1024

log = structlog.get_logger()


def collect(
    control: ControlPlane, policy: Policy, record: Recovery, found: ProbeReport, *, timeout: float
) -> None:
    """Store the probe's figures and what the component can say; never in the way of a repair."""
    bundle: dict[str, Any] = {"probe": found.as_dict(), "event": record.event.as_dict()}
    gather = find_evidence(record.target.component)
    if gather is not None:
        try:
            said = gather(policy.target(record.target), min(timeout, MAX_SECONDS))
            bundle["target"] = plain(said)
        except RemedyError as error:
            bundle["target"] = {"unavailable": str(error)}
    text = json.dumps(bundle, separators=(",", ":"))
    if len(text) > MAX_BYTES:
        bundle["target"] = {"left_out": f"{len(text)} bytes"}
        text = json.dumps(bundle, separators=(",", ":"))
    seconds = int(policy.audit.retention_days * 86400)
    try:
        with reachable():
            control.redis.set(control.key("evidence", record.id), text, ex=seconds)
    except ControlPlaneUnavailable as error:
        log.warning("evidence not stored", error=str(error))


def read(control: ControlPlane, recovery_id: str) -> dict[str, Any] | None:
    with reachable():
        stored = control.redis.get(control.key("evidence", recovery_id))
    return json.loads(stored) if stored else None

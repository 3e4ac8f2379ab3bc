"""Alerts on their way out: written by the scripts that change state, delivered from here.

The outbox is a stream with one consumer group, so that an alert is delivered by one worker, and by
another if that one dies meanwhile. Delivery is never in the way of a repair.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import structlog

from recovery.controlplane import reachable

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.controlplane import ControlPlane

GROUP = "notify"
ABANDONED_MS = 60_000
_BATCH = 100

Channel = Callable[[Mapping[str, Any]], None]

log = structlog.get_logger()


def to_log(alert: Mapping[str, Any]) -> None:
    """The channel that is always there: one structured line an alert."""
    facts = {name: value for name, value in alert.items() if name != "kind"}
    log.warning("alert", kind=alert["kind"], **facts)


def tell(
    control: ControlPlane, alert: Mapping[str, Any], *, matter: str, quiet_seconds: int
) -> None:
    """Put an alert into the outbox, unless the same matter was told within ``quiet_seconds``.

    Raises ``ControlPlaneUnavailable``.
    """
    control.run("tell", json.dumps(alert), matter, quiet_seconds)


def is_wanted(policy: Policy, alert: Mapping[str, Any]) -> bool:
    """Whether the policy's ``alert_on_*`` keys ask for this kind; a call for a person always is."""
    alerting = policy.alerting
    if not alerting.enabled:
        return False
    kind = alert["kind"]
    if kind == "recovery":
        return alerting.alert_on_recovery and alert["result"] != "dry_run"
    if kind == "cooldown":
        return alerting.alert_on_cooldown
    if kind in ("degraded", "degraded_over"):
        return alerting.alert_on_degraded_mode
    return True


def deliver(
    control: ControlPlane, policy: Policy, consumer: str, channels: tuple[Channel, ...] = (to_log,)
) -> int:
    """Deliver what waits in the outbox and return how many alerts were read."""
    _ensure_group(control)
    read = 0
    for entries in _batches(control, consumer):
        for entry_id, stored in entries:
            alert = json.loads(stored["alert"])
            if is_wanted(policy, alert):
                for channel in channels:
                    channel(alert)
            with reachable():
                control.redis.xack(control.key("outbox"), GROUP, entry_id)
            read += 1
    return read


def _batches(control: ControlPlane, consumer: str) -> Any:
    outbox = control.key("outbox")
    with reachable():
        _, abandoned, *_ = control.redis.xautoclaim(
            outbox, GROUP, consumer, min_idle_time=ABANDONED_MS, count=_BATCH
        )
    yield [entry for entry in abandoned if entry[1]]
    while True:
        with reachable():
            fresh = control.redis.xreadgroup(GROUP, consumer, {outbox: ">"}, count=_BATCH)
        if not fresh:
            return
        yield fresh[0][1]


def _ensure_group(control: ControlPlane) -> None:
    from redis.exceptions import ResponseError

    try:
        with reachable():
            control.redis.xgroup_create(control.key("outbox"), GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise

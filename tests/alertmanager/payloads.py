"""Messages as Alertmanager's webhook sends them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

BEGAN = datetime(2026, 1, 1, 12, tzinfo=UTC)
NEVER = "0001-01-01T00:00:00Z"


def alert(
    status: str = "firing",
    *,
    target: str = "default",
    failure_type: str = "connection_error",
    after: float = 0,
    **labels: str,
) -> dict[str, Any]:
    """One alert about a Redis, begun so many seconds after the first."""
    said = {
        "alertname": "TargetDown",
        "component": "redis",
        "target": target,
        "failure_type": failure_type,
        **labels,
    }
    begun = BEGAN + timedelta(seconds=after)
    text = repr(sorted(said.items()))
    return {
        "status": status,
        "labels": said,
        "annotations": {"summary": "it is down"},
        "startsAt": begun.isoformat(timespec="microseconds").replace("+00:00", "789Z"),
        "endsAt": NEVER if status == "firing" else (begun + timedelta(seconds=60)).isoformat(),
        "generatorURL": "http://prometheus:9090/graph",
        "fingerprint": hashlib.sha256(text.encode()).hexdigest()[:16],
    }


def message(*alerts: Any, **more: Any) -> dict[str, Any]:
    firing = any(isinstance(one, dict) and one.get("status") == "firing" for one in alerts)
    return {
        "version": "4",
        "groupKey": '{}:{alertname="TargetDown"}',
        "truncatedAlerts": 0,
        "status": "firing" if firing else "resolved",
        "receiver": "recovery",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "alerts": list(alerts),
        **more,
    }

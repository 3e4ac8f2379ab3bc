"""``/alerts``: the door through which Alertmanager's messages come."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.conftest import Site
from tests.servers import RedisServer
from tests.stack import Stack

RULES = [
    {"match": {"alertname": "RedisDown"}, "component": "redis", "failure_type": "connection_error"}
]


def message(*names: str) -> dict[str, Any]:
    return {
        "version": "4",
        "status": "firing",
        "receiver": "recovery",
        "alerts": [
            {
                "status": "firing",
                "labels": {"alertname": name},
                "annotations": {},
                "startsAt": "2026-01-01T00:00:00Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "fingerprint": f"{number:016x}",
            }
            for number, name in enumerate(names)
        ],
    }


@pytest.fixture
def policy_options() -> dict[str, Any]:
    return {"sections": {"alerting": {"receive": {"rules": RULES}}}}


def test_an_alert_becomes_an_event_and_what_fits_no_rule_is_said(stack: Stack, site: Site) -> None:
    answer = site.post("/alerts", message("RedisDown", "Other"))

    assert answer.status_code == 200, answer.text
    (taken,) = answer.json()["taken"]
    assert (taken["target"], taken["action"]) == ("redis/default", "sent")
    (left,) = answer.json()["left"]
    assert left["reason"] == "unmapped"
    assert stack.control.redis.llen("dispatch") == 1


def test_alertmanager_needs_the_token(site: Site) -> None:
    assert site.post("/alerts", message("RedisDown"), token=None).status_code == 401


@pytest.mark.parametrize("said", [[], {}, {"version": "3", "alerts": []}, {"version": 4}])
def test_what_is_no_message_is_a_clear_error(site: Site, said: Any) -> None:
    answer = site.post("/alerts", said)

    assert answer.status_code == 422
    assert set(answer.json()) == {"error", "message", "facts"}


def test_while_the_control_plane_is_away_alertmanager_is_told_to_come_again(
    site: Site, control_redis: RedisServer
) -> None:
    control_redis.kill()

    assert site.post("/alerts", message("RedisDown")).status_code == 503

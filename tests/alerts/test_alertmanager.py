"""A real Alertmanager is told what holds and what happened."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recovery import alerts, approvals, dispatch
from recovery.conclusion import conclude
from recovery.events import Assignment, Outcome, Result, TargetRef
from recovery.lease import Lease, claim
from recovery.records import load
from tests.alerts.conftest import Desk
from tests.alerts.sinks import HttpSink
from tests.monitoring import Monitor
from tests.waiting import until

TARGET = TargetRef("redis", "cache")


@pytest.fixture
def office(desk: Desk, alertmanager: Monitor) -> Desk:
    desk.turn_to(
        channels=["prometheus_alertmanager"],
        integration={"prometheus_alertmanager": alertmanager.url},
        runbook_url="https://docs.example.org/runbooks",
        severity_mapping={"critical": "P1"},
    )
    return desk


def recover(desk: Desk, identity: str, result: Result, **said: object) -> None:
    message = {"component": "redis", "target": "cache", "failure_type": "connection_error", **said}
    assert dispatch.dispatch(desk.control, desk.policy, identity, message).decision.admitted
    held = claim(
        desk.control, Assignment(recovery_id=identity, target=TARGET, strategy="reconnect"), "me"
    )
    assert isinstance(held, Lease)
    record = load(desk.control, identity)
    conclude(desk.control, desk.policy, record, Outcome(result=result), held.fence)


def ends(alert: dict[str, str]) -> datetime:
    return datetime.fromisoformat(alert["endsAt"])


def test_what_holds_after_a_failure_is_shown_until_it_is_over(
    office: Desk, alertmanager: Monitor
) -> None:
    recover(office, "r-1", Result.FAILED)
    office.deliver()

    def shown(**labels: str) -> list[dict[str, str]]:
        return alertmanager.alerts(component="redis", target="cache", source="recovery", **labels)

    (cooldown,) = until(lambda: shown(alertname="RecoveryCooldown"), what="the cooldown is shown")
    (mode,) = shown(alertname="RecoveryDegradedMode")
    (concluded,) = shown(alertname="RecoveryConcluded")
    assert cooldown["labels"]["severity"] == "P1"
    assert cooldown["annotations"]["runbook_url"] == (
        "https://docs.example.org/runbooks/redis-reconnect.md"
    )
    assert mode["labels"]["mode"] == "redis_unavailable"
    assert mode["annotations"]["runbook_url"].endswith("/mode-redis-unavailable.md")
    assert concluded["labels"]["result"] == "failed"
    assert datetime.now(UTC) < ends(cooldown) < datetime.now(UTC) + timedelta(seconds=301)

    recover(office, "r-2", Result.RECOVERED, force=True, reason="test", source="cli")
    office.deliver()

    until(lambda: not shown(alertname="RecoveryCooldown"), what="the cooldown is over")
    until(lambda: not shown(alertname="RecoveryDegradedMode"), what="the mode is over")


def test_a_call_for_a_person_says_why(office: Desk, alertmanager: Monitor) -> None:
    message = {"component": "redis", "target": "cache", "failure_type": "auth_failure"}
    dispatch.dispatch(office.control, office.policy, "r-1", message)

    office.deliver()

    (called,) = until(
        lambda: alertmanager.alerts(alertname="RecoveryPersonNeeded"), what="a person is called"
    )
    assert "level 3" in called["annotations"]["summary"]
    assert called["annotations"]["runbook_url"].endswith("/escalation.md")


def test_a_pending_approval_is_shown_with_its_link_until_it_is_decided(
    office: Desk, alertmanager: Monitor
) -> None:
    message = {"component": "redis", "target": "cache", "failure_type": "connection_error"}
    dispatch.dispatch(office.control, office.policy, "r-1", {**message, "require_approval": True})
    office.deliver()
    (waiting,) = until(
        lambda: alertmanager.alerts(alertname="RecoveryApprovalPending"), what="it is shown"
    )
    assert waiting["annotations"]["status_page"] == "https://recovery.example.org/#a:r-1"

    approvals.deny(office.control, office.policy, "r-1", by="ann")
    office.deliver()

    until(lambda: not alertmanager.alerts(alertname="RecoveryApprovalPending"), what="it is over")


def test_what_still_holds_is_told_again_before_it_would_end(
    office: Desk, alertmanager: Monitor
) -> None:
    message = {"component": "redis", "target": "cache", "failure_type": "auth_failure"}
    dispatch.dispatch(office.control, office.policy, "r-1", message)
    office.deliver()
    (first,) = until(lambda: alertmanager.alerts(alertname="RecoveryPersonNeeded"), what="shown")
    office.deliver()
    (unchanged,) = alertmanager.alerts(alertname="RecoveryPersonNeeded")
    assert unchanged["endsAt"] == first["endsAt"]
    told = office.control.key("alertmanager:told")
    for identity, text in office.control.redis.hgetall(told).items():
        held = json.loads(text)
        office.control.redis.hset(told, identity, json.dumps({**held, "told": held["told"] - 61}))

    office.deliver()

    def later() -> bool:
        (again,) = alertmanager.alerts(alertname="RecoveryPersonNeeded")
        return ends(again) > ends(first) and again["startsAt"] == first["startsAt"]

    until(later, what="its end moved on")


def test_an_alertmanager_that_lost_its_memory_or_was_away_is_told_what_holds(
    office: Desk, alertmanager: Monitor
) -> None:
    alertmanager.stop()
    recover(office, "r-1", Result.FAILED)
    for _ in range(3):
        office.deliver()
        office.rest_is_over("prometheus_alertmanager")
    (_, standing) = alerts.standing(office.control, alerts.channels_of(office.policy))
    assert standing.failures == 3

    alertmanager.start()
    office.deliver()

    until(lambda: alertmanager.alerts(alertname="RecoveryCooldown"), what="it is told")
    assert alertmanager.alerts(alertname="RecoveryConcluded", result="failed")


def test_recoveries_stay_away_from_alertmanager_where_the_integration_says_so(
    office: Desk, alertmanager: Monitor
) -> None:
    office.turn_to(
        channels=["prometheus_alertmanager"],
        integration={"prometheus_alertmanager": alertmanager.url, "alert_on_recovery": False},
    )
    recover(office, "r-1", Result.FAILED)

    office.deliver()

    until(lambda: alertmanager.alerts(alertname="RecoveryCooldown"), what="the cooldown is shown")
    assert not alertmanager.alerts(alertname="RecoveryConcluded")


def test_a_channel_that_the_policy_does_not_name_is_not_used(
    office: Desk, alertmanager: Monitor
) -> None:
    office.turn_to(channels=[], integration={"prometheus_alertmanager": alertmanager.url})
    recover(office, "r-1", Result.FAILED)

    office.deliver()

    assert [channel.name for channel in alerts.channels_of(office.policy)] == ["log"]
    assert not alertmanager.alerts()


def test_our_own_alerts_do_not_come_back_as_events(office: Desk, alertmanager: Monitor) -> None:
    recover(office, "r-1", Result.FAILED)
    office.deliver()

    shown = until(alertmanager.alerts, what="alerts are shown")

    assert {alert["labels"]["source"] for alert in shown} == {"recovery"}


def test_what_happened_is_shown_for_as_long_as_the_policy_says(
    office: Desk, alertmanager: Monitor
) -> None:
    office.turn_to(
        channels=["prometheus_alertmanager"],
        integration={"prometheus_alertmanager": alertmanager.url},
        alertmanager={"shown_for": "1h"},
    )
    office.tell(result="recovered")

    office.deliver()

    (shown,) = until(lambda: alertmanager.alerts(alertname="RecoveryConcluded"), what="it is shown")
    assert ends(shown) > datetime.now(UTC) + timedelta(minutes=58)


@pytest.mark.parametrize(
    ("said", "proof"),
    [
        ({"username": "us", "password": "s3cret"}, "Basic dXM6czNjcmV0"),
        ({"username": "us", "password_file": "FILE"}, "Basic dXM6czNjcmV0"),
        ({"token": "s3cret"}, "Bearer s3cret"),
        ({"token_file": "FILE"}, "Bearer s3cret"),
    ],
)
def test_alertmanager_is_shown_who_we_are(
    desk: Desk, sink: HttpSink, tmp_path: Path, said: dict[str, str], proof: str
) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    section = {k: str(tmp_path / "secret") if v == "FILE" else v for k, v in said.items()}
    desk.turn_to(
        channels=["prometheus_alertmanager"],
        integration={"prometheus_alertmanager": sink.url},
        alertmanager=section,
    )
    desk.tell()

    desk.deliver()

    assert sink.paths[0] == "/api/v2/alerts"
    assert sink.seen_headers[0]["authorization"] == proof

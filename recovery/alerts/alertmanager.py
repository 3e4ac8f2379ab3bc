"""Alertmanager's API (v2): what holds is told while it holds, what happened is told for a while.

Alertmanager takes an alert for over when it has not heard of it for its ``resolve_timeout``, or
when the end that was given has passed. What holds is therefore told again and again, each time with
an end a few turns ahead: were we to die, its alerts would end by themselves. What was told last is
kept in the control plane, so that any worker can tell the end of what another one began.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from recovery.alerts.channel import Channel
from recovery.alerts.conditions import Condition, conditions
from recovery.alerts.notices import Notice
from recovery.alerts.posting import Address, post
from recovery.controlplane import reachable

if TYPE_CHECKING:
    from recovery.config import Policy
    from recovery.controlplane import ControlPlane

NAME = "prometheus_alertmanager"
SOURCE = "recovery"
"""Label by which our own alerts are known, in Alertmanager's routes and when they come back."""

AHEAD = 4
"""How many turns of telling again an alert outlives us."""

IDLE_SECONDS = 15.0
"""How often the control plane is looked at while nothing is told."""

_PATH = "/api/v2/alerts"
_AT_ONCE = 500
_LASTING = frozenset({"cooldown", "degraded", "degraded_over", "level", "resolved", "approval"})

Alert: TypeAlias = dict[str, Any]


class AlertmanagerChannel(Channel):
    """One Alertmanager. ``again`` and ``shown`` in seconds."""

    name = NAME

    def __init__(self, address: Callable[[], Address], *, again: float, shown: float) -> None:
        self._address = address
        self._again = again
        self._shown = shown

    def wants(self, policy: Policy, fact: Mapping[str, Any]) -> bool:
        if fact["kind"] == "recovery" and not policy.integration.alert_on_recovery:
            return False
        return super().wants(policy, fact)

    def send(self, notices: Sequence[Notice]) -> None:
        """What happened, once; what holds is told by ``tend``."""
        until = _now() + timedelta(seconds=self._shown)
        happened = [n for n in notices if n.kind not in _LASTING]
        self._post([alert_of(notice, until) for notice in happened])

    def tend(self, control: ControlPlane, policy: Policy, *, is_news: bool) -> None:
        told = _Told(control)
        held = told.read()
        if not (is_news or held or told.is_due(IDLE_SECONDS)):
            return
        now = _now()
        holds = {_identity(c.notice): c for c in conditions(control, policy)}
        begun = {
            identity: self._alert(condition, now, held.get(identity))
            for identity, condition in holds.items()
            if self._is_due(held.get(identity), now)
        }
        over = {
            identity: {**alert, "endsAt": _text(now)}
            for identity, alert in held.items()
            if identity not in holds
        }
        self._post([_plain(alert) for alert in (*begun.values(), *over.values())])
        told.write(begun, over)

    def _is_due(self, held: Alert | None, now: datetime) -> bool:
        return held is None or now.timestamp() - held["told"] >= self._again

    def _alert(self, condition: Condition, now: datetime, held: Alert | None) -> Alert:
        until = now + timedelta(seconds=self._again * AHEAD)
        alert = alert_of(condition.notice, min(until, condition.ends or until))
        # A beginning that was computed must not wander.
        begun = held["startsAt"] if held else alert["startsAt"]
        return {**alert, "startsAt": begun, "told": now.timestamp()}

    def _post(self, alerts: Sequence[Alert]) -> None:
        for start in range(0, len(alerts), _AT_ONCE):
            post(self._address(), _PATH, alerts[start : start + _AT_ONCE])


class _Told:
    """What Alertmanager was told to hold, by what it is recognised by."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control
        self._key = control.key("alertmanager:told")

    def read(self) -> dict[str, Alert]:
        with reachable():
            held: Mapping[str, str] = self._control.redis.hgetall(self._key)
        return {identity: json.loads(text) for identity, text in held.items()}

    def is_due(self, seconds: float) -> bool:
        with reachable():
            looked = self._control.redis.set(
                self._control.key("alertmanager:looked"), 1, nx=True, px=int(seconds * 1000)
            )
        return bool(looked)

    def write(self, begun: Mapping[str, Alert], over: Mapping[str, Alert]) -> None:
        with reachable():
            if begun:
                stored = {identity: json.dumps(alert) for identity, alert in begun.items()}
                self._control.redis.hset(self._key, mapping=stored)
            if over:
                self._control.redis.hdel(self._key, *over)


def alert_of(notice: Notice, ends: datetime) -> Alert:
    """As the API takes it."""
    notes = {"summary": notice.summary, "recovery_id": notice.recovery_id}
    notes |= {"runbook_url": notice.runbook, "status_page": notice.page}
    alert = {
        "labels": _labels(notice),
        "annotations": {name: text for name, text in notes.items() if text},
        "startsAt": _text(notice.at),
        "endsAt": _text(ends),
    }
    return {**alert, "generatorURL": notice.page} if notice.page else alert


def _labels(notice: Notice) -> dict[str, str]:
    said = {
        "alertname": notice.name,
        "severity": notice.severity,
        "source": SOURCE,
        **notice.labels,
    }
    if notice.kind == "approval" and notice.recovery_id:
        said["recovery_id"] = notice.recovery_id
    return said


def _identity(notice: Notice) -> str:
    return json.dumps(sorted(_labels(notice).items()), separators=(",", ":"))


def _plain(alert: Alert) -> Alert:
    return {name: value for name, value in alert.items() if name != "told"}


def _now() -> datetime:
    return datetime.now(UTC)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")

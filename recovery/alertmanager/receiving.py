"""One message of Alertmanager: noted, made into events where it is news, and answered.

Alertmanager sends an alert again whenever its group changes, after its repeat interval, and when it
got no answer; its peers send it too. What was heard is therefore noted in the control plane, and
an event's id follows from what it is made of, so that saying it twice is one recovery. The note
that an event was sent is written after it is on the broker: killed in between, it is sent again
under the same id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import structlog
from pydantic import ValidationError

from recovery import producer, records
from recovery.alertmanager.mapping import meaning
from recovery.alertmanager.payload import Alert, explain, read_message
from recovery.alertmanager.receipt import Action, Left, Reason, Receipt, Taken
from recovery.conclusion import NO_LEASE, Conclusion, conclude
from recovery.errors import InvalidEvent, UnknownRecovery
from recovery.events import Outcome, Result, Source, State, TargetRef
from recovery.messages import FIGURES, read_event

if TYPE_CHECKING:
    from celery import Celery

    from recovery.config import Policy
    from recovery.controlplane import ControlPlane

OUR_SOURCE = "recovery"
"""Label ``source`` of the alerts that we send to Alertmanager; they never come back as events."""

LIFE_SECONDS = 14 * 86_400
"""How long an alert is remembered after it was last heard of."""

MOST_FINGERPRINTS = 2000
"""Of one target and failure type; those that are over are forgotten at half of it."""

_EVENTS = UUID("6d1f4f0e-8f0b-4d4e-9c7b-9a6d9a0f2f53")
_LONGEST_TEXT = 200

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Matter:
    """What alerts of any fingerprint may be about: one target failing in one way."""

    target: TargetRef
    failure_type: str

    def __str__(self) -> str:
        return f"{self.target}|{self.failure_type}"


@dataclass(slots=True)
class _Sorted:
    """A message's alerts by what they are about, and those that were left."""

    matters: dict[_Matter, list[Alert]] = field(default_factory=dict)
    left: list[Left] = field(default_factory=list)


def receive(
    control: ControlPlane,
    policy: Policy,
    payload: Mapping[str, Any],
    *,
    app: Celery | None = None,
) -> Receipt:
    """Take in one message of Alertmanager's webhook.

    Raises ``InvalidEvent`` where it is none, and ``ControlPlaneUnavailable``: said again later, it
    is taken in as if for the first time.
    """
    message = read_message(payload)
    section = policy.alerting.receive
    if not section.enabled:
        return Receipt(left=_all_left(message.alerts, Reason.SWITCHED_OFF))
    sort = _sort(policy, message.alerts[: section.max_alerts])
    taken: list[Taken] = []
    for matter, alerts in sort.matters.items():
        answered, stale = _take(control, policy, matter, alerts, app)
        taken += answered
        sort.left += stale
    sort.left += _all_left(message.alerts[section.max_alerts :], Reason.BEYOND_LIMIT)
    receipt = Receipt(taken=tuple(taken), left=tuple(sort.left), truncated=message.truncated)
    _log(receipt)
    return receipt


def _all_left(alerts: Sequence[Any], reason: Reason) -> tuple[Left, ...]:
    return (Left(fingerprint="", reason=reason, count=len(alerts)),) if alerts else ()


def _sort(policy: Policy, said: Iterable[Any]) -> _Sorted:
    sort = _Sorted()
    for one in said:
        try:
            alert = Alert.model_validate(one)
        except ValidationError as error:
            fault = Left(fingerprint="", reason=Reason.MALFORMED, detail=explain(error))
            sort.left.append(fault)
            continue
        about = _about(policy, alert)
        if isinstance(about, Left):
            sort.left.append(about)
        else:
            sort.matters.setdefault(about, []).append(alert)
    return sort


def _about(policy: Policy, alert: Alert) -> _Matter | Left:
    """What an alert is about, as far as this policy knows it."""
    if alert.labels.get("source") == OUR_SOURCE:
        return Left(fingerprint=alert.fingerprint, reason=Reason.OUR_OWN)
    found = meaning(alert.labels, policy.alerting.receive.rules)
    if found is None:
        return Left(
            fingerprint=alert.fingerprint,
            reason=Reason.UNMAPPED,
            detail="no rule of alerting.receive fits its labels",
        )
    message = {
        "component": found.component,
        "target": found.target,
        "failure_type": found.failure_type,
        "source": Source.ALERTMANAGER.value,
    }
    try:
        event = read_event("", message, policy)
    except InvalidEvent as error:
        detail = error.message[:_LONGEST_TEXT]
        return Left(fingerprint=alert.fingerprint, reason=Reason.UNKNOWN, detail=detail)
    return _Matter(event.target, found.failure_type)


def _take(
    control: ControlPlane,
    policy: Policy,
    matter: _Matter,
    alerts: Sequence[Alert],
    app: Celery | None,
) -> tuple[list[Taken], list[Left]]:
    """Note the alerts of one matter, and do what follows."""
    ordered = sorted(alerts, key=lambda alert: (alert.starts_ms, not alert.is_firing))
    verdict, known_id, n, newest, words = _note(control, policy, matter, ordered)
    recovery_id: str | None = known_id or None
    firing = {"send": Action.SENT, "under_way": Action.UNDER_WAY}.get(verdict, Action.KNOWN)
    over = Action.OVER
    if verdict == "send":
        loudest = max((a for a in ordered if a.is_firing), key=lambda alert: alert.starts_ms)
        recovery_id = _send(control, matter, loudest, n=int(n) + 1, newest=int(newest), app=app)
    elif verdict == "over" and recovery_id and _withdraw(control, policy, recovery_id):
        over = Action.WITHDRAWN
    taken, left = [], []
    for alert, word in zip(ordered, words, strict=True):
        if word == "stale":
            detail = "a later word on it was heard before"
            left.append(Left(fingerprint=alert.fingerprint, reason=Reason.STALE, detail=detail))
            continue
        taken.append(
            Taken(
                fingerprint=alert.fingerprint,
                target=str(matter.target),
                failure_type=matter.failure_type,
                action=firing if word == "firing" else over,
                recovery_id=recovery_id,
            )
        )
    return taken, left


def _note(
    control: ControlPlane, policy: Policy, matter: _Matter, alerts: Sequence[Alert]
) -> list[Any]:
    facts: list[str | int] = []
    for alert in alerts:
        facts += [alert.fingerprint, alert.starts_ms, int(alert.is_firing)]
    wait_ms = int(policy.alerting.receive.repeat_after * 1000)
    answer: list[Any] = control.run(
        "alerted", str(matter), LIFE_SECONDS, wait_ms, MOST_FINGERPRINTS, *facts
    )
    return answer


def _send(
    control: ControlPlane, matter: _Matter, alert: Alert, *, n: int, newest: int, app: Celery | None
) -> str:
    """Make an event of a matter; its id is the same however often it is made of the same."""
    name = _line(alert.name)
    recovery_id = producer.trigger(
        matter.target.component,
        matter.failure_type,
        target=matter.target.name,
        context={FIGURES: {"alert": name, "severity": _line(alert.labels.get("severity", ""))}},
        source=Source.ALERTMANAGER,
        correlation_id=alert.fingerprint,
        reason=f"Alertmanager: {name}"[:_LONGEST_TEXT] if name else None,
        recovery_id=str(uuid5(_EVENTS, f"{control.prefix}{matter}|{newest}|{n}")),
        app=app,
    )
    control.run("alert_sent", str(matter), LIFE_SECONDS, recovery_id, n, newest)
    return recovery_id


def _withdraw(control: ControlPlane, policy: Policy, recovery_id: str) -> bool:
    """End the wait for an approval that nobody has to give any more.

    What a person has approved stands, and what is queued or runs finds out from its probe.
    """
    try:
        record = records.load(control, recovery_id)
    except UnknownRecovery:
        return False
    if record.state is not State.AWAITING_APPROVAL or record.decision is not None:
        return False
    outcome = Outcome(
        result=Result.WITHDRAWN,
        error=Result.WITHDRAWN.value,
        detail="Alertmanager says that the alert is over",
    )
    return conclude(control, policy, record, outcome, NO_LEASE) is Conclusion.CONCLUDED


def _line(text: str) -> str:
    """A label's value on one line, short enough for an event."""
    return "".join(letter for letter in text if letter.isprintable())[:100]


def _log(receipt: Receipt) -> None:
    left: dict[str, int] = {}
    for one in receipt.left:
        left[one.reason.value] = left.get(one.reason.value, 0) + one.count
    log.info("alerts received", taken=len(receipt.taken), sent=len(receipt.sent), left=left)

"""A turn of every channel: read, send, acknowledge; and for one that is away, back off.

A channel has one turn at a time, wherever the workers are. Killed between sending and
acknowledging, it sends again: an alert comes at least once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import structlog

from recovery.alerts.notices import notice_of
from recovery.alerts.outbox import Batch, Outbox
from recovery.controlplane import reachable
from recovery.errors import AlertNotDelivered, AlertRefused, ControlPlaneUnavailable

if TYPE_CHECKING:
    from recovery.alerts.channel import Channel
    from recovery.config import Policy
    from recovery.controlplane import ControlPlane

BATCH = 200
TURN_SECONDS = 60.0
"""A turn that takes longer has lost its worker, and another may begin."""

MOST_IN_A_TURN = 10_000
LONGEST_PAUSE_SECONDS = 60.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a channel does. ``failures``: since it last worked."""

    name: str
    failures: int
    error: str
    delivered: int
    lost: int
    refused: int


def deliver(control: ControlPlane, policy: Policy, channels: Sequence[Channel]) -> int:
    """Give every channel its turn, all at once; returns how many alerts were sent.

    Raises ``ControlPlaneUnavailable``.
    """
    if not channels:
        return 0
    with ThreadPoolExecutor(len(channels), thread_name_prefix="notify") as threads:
        turns = [threads.submit(_turn, control, policy, channel) for channel in channels]
    return sum(turn.result() for turn in turns)


def standing(control: ControlPlane, channels: Sequence[Channel]) -> tuple[Standing, ...]:
    """How each channel does; raises ``ControlPlaneUnavailable``."""
    with reachable():
        pipe = control.redis.pipeline(transaction=False)
        for channel in channels:
            pipe.hgetall(_state(control, channel))
        held = pipe.execute()
    return tuple(_standing(channel.name, one) for channel, one in zip(channels, held, strict=True))


def _standing(name: str, held: dict[str, str]) -> Standing:
    return Standing(
        name=name,
        failures=int(held.get("failures", 0)),
        error=held.get("error", ""),
        delivered=int(held.get("delivered", 0)),
        lost=int(held.get("lost", 0)),
        refused=int(held.get("refused", 0)),
    )


def _turn(control: ControlPlane, policy: Policy, channel: Channel) -> int:
    with _alone(control, channel) as may_send:
        if not may_send or _is_resting(control, channel):
            return 0
        try:
            sent = _pass_on(control, policy, channel)
            channel.tend(control, policy, is_news=sent > 0)
        except ControlPlaneUnavailable:
            raise
        except AlertNotDelivered as error:
            _back_off(control, channel, str(error))
            return 0
        except Exception as error:
            # What a library may raise is not ours to list; it is the channel's fault, no other's.
            log.exception("channel crashed", channel=channel.name)
            _back_off(control, channel, type(error).__name__)
            return 0
        _well(control, channel, sent)
        return sent


def _pass_on(control: ControlPlane, policy: Policy, channel: Channel) -> int:
    outbox, sent = Outbox(control, channel.name), 0
    while sent < MOST_IN_A_TURN:
        batch = outbox.next(BATCH)
        if batch.lost:
            log.error("alerts lost: away for too long", channel=channel.name, lost=batch.lost)
            _count(control, channel, "lost", batch.lost)
        if not batch.ids:
            return sent
        _send(control, policy, channel, batch)
        outbox.acknowledge(batch.ids)
        sent += len(batch.ids)
        if channel.rest_seconds:
            return sent
    return sent


def _send(control: ControlPlane, policy: Policy, channel: Channel, batch: Batch) -> None:
    wanted = [notice_of(policy, fact) for fact in batch.facts if channel.wants(policy, fact)]
    if not wanted:
        return
    try:
        channel.send(wanted)
    except AlertRefused as error:
        # Sent again it would be refused again, and hold up all that follows.
        log.warning("alerts refused", channel=channel.name, count=len(wanted), error=str(error))
        _count(control, channel, "refused", len(wanted))


@contextmanager
def _alone(control: ControlPlane, channel: Channel) -> Iterator[bool]:
    name, token = control.key("channel:turn", channel.name), uuid4().hex
    with reachable():
        is_mine = control.redis.set(name, token, nx=True, px=int(TURN_SECONDS * 1000))
    try:
        yield bool(is_mine)
    finally:
        if is_mine:
            control.run("end_turn", channel.name, token)


def _is_resting(control: ControlPlane, channel: Channel) -> bool:
    with reachable():
        until = control.redis.hget(_state(control, channel), "rests_until")
    return until is not None and int(until) > control.now_ms()


def _back_off(control: ControlPlane, channel: Channel, error: str) -> None:
    with reachable():
        failures = control.redis.hincrby(_state(control, channel), "failures", 1)
    pause = min(2.0 ** min(failures - 1, 10), LONGEST_PAUSE_SECONDS)
    _write(control, channel, error=error, rests_until=_in(control, pause))
    # A channel may be away for days: say it when it begins, and then now and then.
    if failures == 1 or failures % 60 == 0:
        log.warning("channel away", channel=channel.name, failures=failures, error=error)


def _well(control: ControlPlane, channel: Channel, sent: int) -> None:
    with reachable():
        failures = control.redis.hget(_state(control, channel), "failures")
    if failures and int(failures):
        log.info("channel back", channel=channel.name, failures=int(failures))
        _write(control, channel, failures=0, error="")
    if sent:
        _count(control, channel, "delivered", sent)
        if channel.rest_seconds:
            _write(control, channel, rests_until=_in(control, channel.rest_seconds))


def _in(control: ControlPlane, seconds: float) -> int:
    return control.now_ms() + int(seconds * 1000)


def _count(control: ControlPlane, channel: Channel, name: str, by: int) -> None:
    with reachable():
        control.redis.hincrby(_state(control, channel), name, by)


def _write(control: ControlPlane, channel: Channel, **facts: Any) -> None:
    with reachable():
        control.redis.hset(_state(control, channel), mapping=facts)


def _state(control: ControlPlane, channel: Channel) -> str:
    return control.key("channel", channel.name)

"""Queue ``pulse.<node>``: heard in the main process, by the channel that brings every task."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from celery import Task, bootsteps
from celery.signals import task_received
from celery.worker import state

from recovery import heard, producer
from recovery.liveness import SIGN_SECONDS, Sign
from recovery.supervisor import LIFELINE
from workers.app import app

log = structlog.get_logger()

Handler = Callable[..., None]


class PulseTask(Task):  # type: ignore[type-arg]
    """A task that needs no pool process: Celery asks ``Strategy`` what to do with its message."""

    Strategy = "workers.liveness:hear"


@app.task(base=PulseTask, name=producer.PULSE, ignore_result=True)
def pulse() -> None:
    """Has nothing to do; that its message arrives is all."""


def hear(task: Any, app: Any, consumer: Any) -> Handler:  # noqa: ARG001 - Celery's signature
    """What the main process does with a pulse: acknowledge it and say so."""

    def handle(message: Any, *_: Any) -> None:
        # Not by the promise that Celery hands over: after a lost connection each kept one would
        # raise the prefetch count, which only a finished task may do.
        message.ack_log_error(log, consumer.connection_errors)
        voice.note_message()
        voice.say(consumer)

    return handle


class Voice:
    """The worker's end of the lifeline; silent where nobody supervises it."""

    def __init__(self) -> None:
        self._lifeline: socket.socket | None = None
        self._heard: float | None = None
        self._sign: heard.Sign | None = None

    def find(self, node: str) -> bool:
        """Take up the descriptor that the supervisor left, if it did."""
        descriptor = os.environ.pop(LIFELINE, None)
        if descriptor is not None:
            self._lifeline = socket.socket(fileno=int(descriptor))
            self._lifeline.setblocking(False)
            self._lifeline.set_inheritable(False)
            self._begin_sign(node.partition("@")[0])
        return self._lifeline is not None

    def note_message(self) -> None:
        self._heard = time.monotonic()
        if self._sign is not None:
            self._sign.touch()

    def _begin_sign(self, name: str) -> None:
        """Only where pulses come: who gets no message has no need to take one."""
        sign = heard.Sign(name)
        try:
            sign.begin()
        except OSError as error:
            log.warning("the probe of this host will not see this worker", error=str(error))
        else:
            self._sign = sign

    def say(self, consumer: Any) -> None:
        if self._lifeline is None:
            return
        sign = Sign(
            at=time.monotonic(),
            heard=self._heard,
            # After a lost connection Celery forgets what it reserved and not what runs.
            held=max(len(state.reserved_requests), len(state.active_requests)),
            slots=consumer.pool.num_processes,
            ailment=_ailment(consumer.controller),
        )
        if self._sign is not None and sign.is_full:
            # A full one takes none, and that its loop runs is all that can be asked of it.
            self._sign.touch()
        # A supervisor that is away or does not listen must not stop a worker.
        with suppress(OSError):
            self._lifeline.send(sign.encode())


voice = Voice()


@task_received.connect
def note_task(**_: Any) -> None:
    """Who takes other messages hears too, however long its pulse waits in the row."""
    voice.note_message()


class Lifeline(bootsteps.StartStopStep):
    """Has the loop give a sign each second, after each new connection too."""

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self.enabled = voice.find(consumer.hostname)

    def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
        hub.timer.call_repeatedly(SIGN_SECONDS, voice.say, (consumer,))


app.steps["consumer"].add(Lifeline)


def _ailment(controller: Any) -> str:
    """Celery starts the process of its schedule once, and does not look again."""
    beat = controller.beat
    if beat and beat.pid and not beat.is_alive():
        return "its beat process has ended"
    return ""

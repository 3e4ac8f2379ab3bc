"""A worker's entry in the registry: kept by a thread of its main process while it takes work."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import structlog
from celery.signals import worker_ready, worker_shutdown, worker_shutting_down
from celery.worker import state

from recovery import __version__, registry
from recovery.controlplane import ControlPlane
from recovery.errors import ControlPlaneUnavailable
from recovery.producer import PULSE_QUEUES
from workers import context

log = structlog.get_logger()

_LAST_WORD_SECONDS = 3.0
_LONGEST_START_SECONDS = 30.0
"""After that a worker is registered with the processes that it has: some repair is better."""

_POLL_SECONDS = 0.05


class Registration(threading.Thread):
    """Says every two seconds who we are; takes the entry away when asked to end."""

    def __init__(self, consumer: Any) -> None:
        super().__init__(name="registration", daemon=True)
        self._consumer = consumer
        # Not the one of the pool processes: they are forked while this thread may hold its lock.
        self._control = ControlPlane.connect(context.environment())
        self._ending = threading.Event()

    def run(self) -> None:
        self._await_processes()
        missed = False
        while not self._ending.is_set():
            try:
                registry.register(self._control, self._entry())
            except ControlPlaneUnavailable as error:
                if not missed:
                    log.warning("not registered", error=str(error))
                missed = True
            else:
                missed = False
            self._ending.wait(registry.REGISTER_SECONDS)
        try:
            registry.unregister(self._control, self._entry())
        except ControlPlaneUnavailable as error:
            log.warning("not unregistered", error=str(error))

    def end(self) -> None:
        self._ending.set()

    def _await_processes(self) -> None:
        """A pool process is of use when it has prepared itself: read the policy, got in at its
        targets while they had room. Celery calls a worker ready before that."""
        deadline = time.monotonic() + _LONGEST_START_SECONDS
        while not self._has_processes() and time.monotonic() < deadline:
            if self._ending.wait(_POLL_SECONDS):
                return

    def _has_processes(self) -> bool:
        pool = self._consumer.pool
        # Celery tells nobody of a process that is up; it keeps the pipes of those that are.
        pipes = getattr(getattr(pool, "_pool", None), "_all_inqueues", None)
        return pipes is None or len(pipes) >= pool.num_processes

    def _entry(self) -> registry.Worker:
        # A copy: the main thread may change what it consumes.
        consumed = list(self._consumer.app.amqp.queues.consume_from)
        return registry.Worker(
            node=self._consumer.hostname,
            host=context.environment().host,
            pid=os.getpid(),
            version=__version__,
            queues=tuple(sorted(name for name in consumed if not name.startswith(PULSE_QUEUES))),
            concurrency=self._consumer.pool.num_processes,
            active=len(state.active_requests),
        )


_running: list[Registration] = []


@worker_ready.connect
def begin(sender: Any, **_: Any) -> None:
    _running.append(Registration(sender))
    _running[-1].start()


@worker_shutting_down.connect
def stop_taking(**_: Any) -> None:
    """Before the last tasks end: nothing new is taken from here on. In a signal handler."""
    for registration in _running:
        registration.end()


@worker_shutdown.connect
def leave(**_: Any) -> None:
    stop_taking()
    for registration in _running:
        registration.join(_LAST_WORD_SECONDS)

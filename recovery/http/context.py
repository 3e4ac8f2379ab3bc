"""What every route needs: control plane, policy, environment, and a measurement of this moment."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from fastapi import Request

from recovery.errors import ControlPlaneUnavailable
from recovery.http.access import Caller, Door
from recovery.measurement import Measurement, measure

if TYPE_CHECKING:
    from celery import Celery

    from recovery.config import Environment, Policy
    from recovery.controlplane import ControlPlane
    from recovery.http.settings import Settings

FRESH_SECONDS = 1.0
"""A measurement this young is given again: asking more often costs the control plane nothing."""


@dataclass(slots=True)
class Context:
    control: ControlPlane
    policy: Policy
    environment: Environment
    settings: Settings
    app: Celery | None = None
    """What sends messages; the process's own where none is given."""
    _last: Measurement | ControlPlaneUnavailable = field(init=False)
    _last_at: float = field(default=-math.inf, init=False)
    _made: dict[str, tuple[Measurement, bytes]] = field(default_factory=dict, init=False)
    _measuring: threading.Lock = field(default_factory=threading.Lock, init=False)

    def measured(self, max_age: float = FRESH_SECONDS) -> Measurement:
        """Those who ask at once share one, or what kept it from being had.

        Raises ``ControlPlaneUnavailable``.
        """
        with self._measuring:
            if time.monotonic() - self._last_at > max_age:
                self._measure()
            if isinstance(self._last, ControlPlaneUnavailable):
                raise self._last
            return self._last

    def _measure(self) -> None:
        try:
            self._last = measure(self.control, self.policy, self.environment)
        except ControlPlaneUnavailable as error:
            # A silent control Redis takes seconds to be found out; once is enough.
            self._last = error.with_traceback(None)
        self._last_at = time.monotonic()

    def once(self, now: Measurement, name: str, make: Callable[[], bytes]) -> bytes:
        """What is made of one measurement, made once."""
        held = self._made.get(name)
        if held is None or held[0] is not now:
            held = self._made[name] = (now, make())
        return held[1]


def context_of(request: Request) -> Context:
    return cast("Context", request.app.state.context)


def caller_of(request: Request) -> Caller:
    return cast("Caller", request.scope["state"]["caller"])


def door_of(request: Request) -> Door:
    return cast("Door", request.scope["state"]["door"])

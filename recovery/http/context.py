"""What every route needs: control plane, policy, environment, and a measurement of this moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from fastapi import Request

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
    _last: Measurement | None = field(default=None, init=False)
    _last_at: float = field(default=0.0, init=False)
    _made: dict[str, tuple[Measurement, bytes]] = field(default_factory=dict, init=False)
    _measuring: threading.Lock = field(default_factory=threading.Lock, init=False)

    def measured(self, max_age: float = FRESH_SECONDS) -> Measurement:
        """Those who ask at once share one; raises ``ControlPlaneUnavailable``."""
        with self._measuring:
            if self._last is None or time.monotonic() - self._last_at > max_age:
                self._last = measure(self.control, self.policy, self.environment)
                self._last_at = time.monotonic()
            return self._last

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

"""Failures that an application met: which failure type they are, told once, sent later.

``take`` is called by the application and touches memory alone; ``deliver`` by the background
thread.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from recovery.errors import ConfigError, ControlPlaneUnavailable, InvalidEvent
from recovery.events import Source, TargetRef

if TYPE_CHECKING:
    from recovery.environment import Environment

DEFAULT_TARGET = "default"
"""Left out of an event: the policy knows which of its targets that is."""

MOST_WAITING = 100
KEEP_SECONDS = 60.0
"""A failure that could not be told for so long is told by others, or over."""

PAUSE_SECONDS = 2.0
"""Between two tries while the broker is away."""

_SILENT = "connection_timeout"
_REFUSED = "connection_error"

# By the name of the class, the nearest first, so that no client library is imported to compare.
# None: the client's own limit, which says nothing of the server.
_BY_CLASS: dict[str, str | None] = {
    "AuthenticationError": "auth_failure",
    "AuthorizationError": "auth_failure",
    "NoPermissionError": "auth_failure",
    "BusyLoadingError": "loading",
    "ReadOnlyError": "read_only",
    "OutOfMemoryError": "memory_pressure",
    "MaxConnectionsError": None,
    "PoolTimeout": None,
    "TimeoutError": _SILENT,
    "TimeoutException": _SILENT,
    "Timeout": _SILENT,
    "ConnectionError": _REFUSED,
    "NetworkError": _REFUSED,
}
_BY_TEXT: dict[str, str | None] = {
    "max number of clients reached": "clients_exhausted",
    "MISCONF": "persistence_error",
    "Too many connections": None,
    "No connection available": None,
}
_BY_ERRNO = {
    errno.ENOSPC: "disk_full",
    errno.EMFILE: "open_file_limit_reached",
    errno.ENFILE: "file_handle_exhaustion",
}
# What each component calls what several have; where a name is missing, it has no such failure.
_CALLED = {
    "chromadb": {_SILENT: _SILENT, _REFUSED: "temporary_failure"},
    "openwebui": {_SILENT: _SILENT, _REFUSED: "service_unavailable"},
    "system": {failure: failure for failure in _BY_ERRNO.values()},
}

log = logging.getLogger("recovery.client")


def failure_type(error: BaseException, component: str) -> str | None:
    """The component's failure that an exception shows; ``None`` where it shows none."""
    found = _found(error)
    if found is None or component == "redis":
        return found if found not in _BY_ERRNO.values() else None
    return _CALLED.get(component, {}).get(found)


def _found(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.errno in _BY_ERRNO:
        return _BY_ERRNO[error.errno]
    text = str(error)
    for marker, failure in _BY_TEXT.items():
        if marker in text:
            return failure
    for kind in type(error).__mro__:
        if kind.__name__ in _BY_CLASS:
            return _BY_CLASS[kind.__name__]
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One failure of one target. ``error`` is the name of the exception's class: its text may hold
    a secret."""

    id: str
    target: TargetRef
    failure_type: str
    error: str
    taken: float


class Outbox:
    """What is to be sent. The oldest gives way where more than ``MOST_WAITING`` wait."""

    def __init__(self) -> None:
        self._waiting: deque[Report] = deque(maxlen=MOST_WAITING)
        self._last: dict[tuple[TargetRef, str], float] = {}
        self._lock = threading.Lock()
        self._not_before = 0.0
        self.is_empty = threading.Event()
        self.is_empty.set()

    def take(self, failure: BaseException | str, target: TargetRef, every: float) -> bool:
        """Whether it will be sent: not where it names no failure, or one told ``every`` s ago."""
        said = failure if isinstance(failure, str) else failure_type(failure, target.component)
        if said is None:
            log.debug("%s is no failure of %s", type(failure).__name__, target)
            return False
        now = time.monotonic()
        with self._lock:
            last = self._last.get((target, said))
            if last is not None and now - last < every:
                return False
            self._last[target, said] = now
            error = "" if isinstance(failure, str) else type(failure).__name__
            report = Report(
                id=str(uuid4()), target=target, failure_type=said, error=error, taken=now
            )
            self._waiting.append(report)
            self.is_empty.clear()
        return True

    def deliver(self, environment: Callable[[], Environment]) -> None:
        """Send what waits. While the broker is away each is tried again, under the same id."""
        if time.monotonic() < self._not_before:
            return
        while self._waiting:
            report = self._waiting[0]
            try:
                _send(report, environment())
            except (ConfigError, ControlPlaneUnavailable) as error:
                self._not_before = time.monotonic() + PAUSE_SECONDS
                if time.monotonic() - report.taken < KEEP_SECONDS:
                    return
                log.warning("%s of %s not told: %s", report.failure_type, report.target, error)
            except InvalidEvent as error:
                log.warning("%s of %s not told: %s", report.failure_type, report.target, error)
            except Exception:
                log.exception("%s of %s not told", report.failure_type, report.target)
            self._drop(report)

    def _drop(self, report: Report) -> None:
        with self._lock:
            if self._waiting and self._waiting[0] is report:
                self._waiting.popleft()
            if not self._waiting:
                self.is_empty.set()


def _send(report: Report, environment: Environment) -> None:
    from recovery.producer import sender, trigger

    target = report.target
    with sender(environment.celery_broker_url) as app:
        trigger(
            target.component,
            report.failure_type,
            target=None if target.name == DEFAULT_TARGET else target.name,
            source=Source.API,
            context={
                "figures": {
                    "error": report.error,
                    "host": environment.host,
                    "pid": os.getpid(),
                }
            },
            recovery_id=report.id,
            app=app,
        )

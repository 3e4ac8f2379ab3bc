"""Whether a worker still hears: a message to itself that does not come back says no.

The supervisor sends a pulse through the broker to a queue that only this worker consumes. The
worker takes it in its main process, by the channel on which all its tasks come, and says so on its
lifeline: a socket to the supervisor, which works without the broker and on a full disk.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import structlog

from recovery.errors import ControlPlaneUnavailable

PULSE_SECONDS = 5.0
DEAF_SECONDS = 15.0
START_SECONDS = 60.0
"""How long a worker may take until its loop runs."""

SIGN_SECONDS = 1.0
"""How often a worker's loop gives a sign."""

_LONGEST_SIGN = 4096
_LAST_PULSE_SECONDS = 3.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """What a worker's main loop says of itself.

    Times are seconds of CLOCK_MONOTONIC, the same for all processes of a machine. ``heard``: when
    it last took any message. ``held`` of ``slots``: messages that it works on, and how many that
    can be; a full worker takes none. ``ailment``: what only a new process cures.
    """

    at: float
    heard: float | None = None
    held: int = 0
    slots: int = 1
    ailment: str = ""

    @property
    def is_full(self) -> bool:
        return self.held >= self.slots

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, raw: bytes) -> Sign:
        """Raises ``ValueError`` or ``TypeError`` for what another release wrote."""
        return cls(**json.loads(raw))


class Pulse:
    """The watch over one worker process after another of the same node name.

    ``deaf_seconds``: how long pulses may stay unanswered while the broker takes them.
    ``full_seconds``: the same while the worker is full; no shorter than its longest task may be.
    ``send`` puts a pulse on the broker, ``leave`` takes its queue away; both may raise
    ``ControlPlaneUnavailable``.
    """

    def __init__(
        self,
        send: Callable[[], None],
        leave: Callable[[], None],
        *,
        deaf_seconds: float = DEAF_SECONDS,
        full_seconds: float = DEAF_SECONDS,
    ) -> None:
        self._send = send
        self._leave = leave
        self._deaf_seconds = deaf_seconds
        self._full_seconds = max(deaf_seconds, full_seconds)
        self._interval = min(PULSE_SECONDS, deaf_seconds / 3)
        self._unanswered: list[float] = []
        self._lock = threading.Lock()
        self._sign: Sign | None = None
        self._socket: socket.socket | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="pulse", daemon=True)

    @contextmanager
    def lifeline(self) -> Iterator[int]:
        """See ``recovery.supervisor.Watch``."""
        self._hang_up()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._sign = None
        self._forget()
        if not self._thread.is_alive():
            self._thread.start()
        with theirs:
            yield theirs.fileno()

    def why_deaf(self) -> str | None:
        """See ``recovery.supervisor.Watch``."""
        self._read()
        sign, now = self._sign, time.monotonic()
        if sign is not None and sign.ailment:
            return sign.ailment
        waited = self._unanswered_for(now, sign)
        if waited >= self._patience(now, sign):
            return f"took no message for {waited:.0f} s while the broker took all of ours"
        return None

    def close(self) -> None:
        """See ``recovery.supervisor.Watch``."""
        self._hang_up()
        if self._closing.is_set() or not self._thread.is_alive():
            return
        self._closing.set()
        self._thread.join(_LAST_PULSE_SECONDS)
        try:
            self._leave()
        except ControlPlaneUnavailable as error:
            log.warning("pulse queue left behind", error=str(error))

    def _patience(self, now: float, sign: Sign | None) -> float:
        if sign is None:
            return max(START_SECONDS, self._deaf_seconds)
        loop_runs = now - sign.at < max(self._deaf_seconds, 3 * SIGN_SECONDS)
        return self._full_seconds if sign.is_full and loop_runs else self._deaf_seconds

    def _unanswered_for(self, now: float, sign: Sign | None) -> float:
        """Counted in pulses too: a machine that was suspended sent none meanwhile."""
        with self._lock:
            if sign is not None and sign.heard is not None:
                heard = sign.heard
                self._unanswered = [asked for asked in self._unanswered if asked > heard]
            if not self._unanswered:
                return 0.0
            return min(now - self._unanswered[0], len(self._unanswered) * self._interval)

    def _ask(self) -> None:
        while not self._closing.wait(self._interval):
            asked = time.monotonic()
            try:
                self._send()
            except ControlPlaneUnavailable:
                self._forget()
            else:
                with self._lock:
                    self._unanswered.append(asked)

    def _forget(self) -> None:
        with self._lock:
            self._unanswered = []

    def _read(self) -> None:
        while self._socket is not None:
            try:
                raw = self._socket.recv(_LONGEST_SIGN)
                if not raw:
                    return
                sign = Sign.decode(raw)
            except BlockingIOError:
                return
            except (ValueError, TypeError):
                log.warning("unreadable sign of a worker")
                continue
            if self._sign is None:
                # What was sent before its loop ran was never for its ears.
                self._forget()
            self._sign = sign

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

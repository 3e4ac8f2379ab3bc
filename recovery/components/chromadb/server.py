"""A Chroma server's process while its files are worked on: stopped, started, seen to answer.

Whether the data is well again is the probe's to say.
"""

from __future__ import annotations

import time

from recovery.components.chromadb.findings import Budget
from recovery.components.chromadb.starting import AWAY
from recovery.components.chromadb.target import ChromaTarget
from recovery.deadline import Deadline
from recovery.errors import (
    NoSuchProcess,
    NotConfigured,
    StillUnhealthy,
    WrongProcess,
)
from recovery.runtime import ProcessState, Readiness, Remaining, await_ready, manage

GRACE_SECONDS = 10.0
"""Between TERM, at which Chroma ends within a second, and KILL, which may tear an index."""
ANSWER_SECONDS = 1.0
CLOSED_SECONDS = 2.0
"""How long an address may answer after its server has ended: a proxy closes a moment later."""

_PAUSE = 0.05


class ServerProcess:
    """The process that serves a target; everything done with it ends when ``remaining`` does.

    Making one raises ``NotConfigured`` where the policy does not say how the server is run.
    """

    def __init__(self, target: ChromaTarget, remaining: Remaining) -> None:
        if target.runtime is None or target.server is None:
            raise NotConfigured(
                "the policy does not say how this Chroma server is run: add the key runtime to its"
                " target",
                {"key": "runtime"},
            )
        self._target = target
        self._url = target.server
        self._remaining = remaining
        self._process = manage(target.runtime, remaining, target.server)

    def inspect(self) -> ProcessState:
        """Raises ``NoSuchProcess`` where the runtime knows no such process."""
        found = self._process.inspect()
        if not found.exists:
            raise NoSuchProcess(found.detail)
        return found

    def stop(self, grace: float = GRACE_SECONDS, *, kill: bool = True) -> None:
        """TERM, ``grace`` seconds, KILL if ``kill``; no error where it does not run.

        Raises ``WontStop``, and ``WrongProcess`` where the target's URL answers all the same: then
        somebody else serves it, perhaps from the very files.
        """
        self.inspect()
        self._process.stop(grace, kill=kill)
        closed = Deadline(CLOSED_SECONDS)
        while self._readiness() is not Readiness.ABSENT:
            if closed.left() <= 0:
                raise WrongProcess(
                    f"{self._url} answers although its process has ended: url and runtime of the"
                    " target name different servers"
                )
            time.sleep(min(_PAUSE, self._remaining()))

    def start(self) -> None:
        """Returns when it answers; no error where it did before.

        Raises ``WontStart``, ``NeverReady``, and ``StillUnhealthy`` where only its heartbeat does.
        """
        self._process.start()
        within = Deadline(self._remaining())
        found = await_ready(self._readiness, self._process.inspect, within, "the server")
        if found is Readiness.COMING:
            raise StillUnhealthy(f"{self._url} was started and answers nothing but heartbeats")

    def _readiness(self) -> Readiness:
        from recovery.components.chromadb import served

        seconds = min(ANSWER_SECONDS, self._remaining())
        found = served.listen(self._target, self._url, Budget(seconds)).finding
        if found is None or found.failure_type not in (AWAY | {"temporary_failure"}):
            # It answers; what it says of its data is judged by the probe.
            return Readiness.READY
        return Readiness.ABSENT if found.failure_type in AWAY else Readiness.COMING

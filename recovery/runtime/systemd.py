"""A unit of systemd, by ``systemctl``."""

from __future__ import annotations

from recovery.errors import NoSuchProcess, RuntimeUnavailable, WontStart, WontStop
from recovery.runtime import programs
from recovery.runtime.process import KILL_SECONDS, ProcessState, Remaining, await_end, born
from recovery.runtime.settings import SystemdRuntime

_PROPERTIES = ("LoadState", "ActiveState", "SubState", "MainPID", "InvocationID", "Job")
_AT_REST = frozenset({"inactive", "failed"})


class Unit:
    """See ``recovery.runtime.Process``."""

    def __init__(self, runtime: SystemdRuntime, remaining: Remaining) -> None:
        self._unit = runtime.unit
        self._scope = f"--{runtime.scope}"
        self._remaining = remaining

    def inspect(self) -> ProcessState:
        wanted = ",".join(_PROPERTIES)
        answer = self._systemctl("show", f"--property={wanted}", "--", self._unit)
        if not answer.is_good:
            raise RuntimeUnavailable(f"systemd does not answer: {answer.complaint}")
        shown = dict(line.partition("=")[::2] for line in answer.output.splitlines())
        if shown["LoadState"] == "not-found":
            return ProcessState(exists=False, detail=f"systemd has no unit {self._unit}")
        pid = int(shown.get("MainPID", 0)) or None
        # What is queued has not begun and will.
        is_queued = shown.get("Job", "0") not in {"", "0"}
        return ProcessState(
            exists=True,
            running=is_queued or shown["ActiveState"] not in _AT_REST,
            id=shown.get("InvocationID") or None,
            pid=pid,
            started_at=born(pid) if pid else None,
            detail=f"{shown['ActiveState']} ({shown['SubState']})",
        )

    def stop(self, grace: float, *, kill: bool = True) -> None:
        """The unit's own way to stop, and its own ``TimeoutStopSec`` where that is shorter."""
        self._known()
        self._order(WontStop, "stop", "--no-block")
        if self._ended(grace):
            return
        if not kill:
            raise WontStop(f"{self._unit} runs on after {grace:g} s")
        # It may have ended by now, and then there is nothing to kill.
        answer = self._systemctl("kill", "--signal=SIGKILL", "--", self._unit)
        if not self._ended(KILL_SECONDS):
            raise WontStop(f"{self._unit} runs on after KILL: {answer.complaint}")

    def start(self) -> None:
        self._known()
        # Too many starts in a short time, of which the last failure may be one, would forbid this.
        self._systemctl("reset-failed", "--", self._unit)
        self._order(WontStart, "start", "--no-block")

    def restart(self, grace: float) -> None:
        self.stop(grace)
        self.start()

    def _known(self) -> None:
        found = self.inspect()
        if not found.exists:
            raise NoSuchProcess(found.detail)

    def _ended(self, seconds: float) -> bool:
        return await_end(lambda: self.inspect().running, seconds, self._remaining)

    def _order(self, refused: type[WontStart | WontStop], *words: str) -> None:
        answer = self._systemctl(*words, "--", self._unit)
        if not answer.is_good:
            raise refused(f"systemd refuses to {words[0]} {self._unit}: {answer.complaint}")

    def _systemctl(self, *words: str) -> programs.Ended:
        command = ("systemctl", self._scope, "--no-pager", "--no-ask-password", *words)
        return programs.run(command, self._remaining, listen=True)

"""A unit of systemd, by ``systemctl``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from recovery.errors import NoSuchProcess, RuntimeUnavailable, WontStart, WontStop
from recovery.runtime import programs
from recovery.runtime.process import KILL_SECONDS, ProcessState, Remaining, await_end, born
from recovery.runtime.settings import SystemdRuntime

_PROPERTIES = (
    *("LoadState", "LoadError", "ActiveState", "SubState", "MainPID", "InvocationID", "Job"),
    *("Result", "ExecMainStatus", "NRestarts"),
)
FOLDER, BUS = "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"
"""The variables by which systemctl finds the user's manager."""

_AT_REST = frozenset({"inactive", "failed"})
_UNUSABLE = frozenset({"not-found", "bad-setting", "error", "masked"})
"""What systemd would not start, though one that was started before may run."""


class Unit:
    """See ``recovery.runtime.Process``."""

    def __init__(self, runtime: SystemdRuntime, remaining: Remaining) -> None:
        self._unit = runtime.unit
        self._scope = runtime.scope
        self._remaining = remaining

    def inspect(self) -> ProcessState:
        wanted = ",".join(_PROPERTIES)
        answer = self._systemctl("show", f"--property={wanted}", "--", self._unit)
        if not answer.is_good:
            raise RuntimeUnavailable(f"systemd does not answer: {answer.complaint}")
        shown = dict(line.partition("=")[::2] for line in answer.output.splitlines())
        pid = int(shown.get("MainPID", 0)) or None
        # What is queued has not begun and will.
        is_queued = shown.get("Job", "0") not in {"", "0"}
        is_usable = shown["LoadState"] not in _UNUSABLE
        return ProcessState(
            exists=is_usable,
            running=is_queued or shown["ActiveState"] not in _AT_REST,
            id=shown.get("InvocationID") or None,
            pid=pid,
            started_at=born(pid) if pid else None,
            detail=_condition(shown) if is_usable else self._objection(shown),
        )

    def _objection(self, shown: Mapping[str, str]) -> str:
        if shown["LoadState"] == "not-found":
            return f"systemd has no unit {self._unit}"
        # The name of an error of D-Bus, then a sentence in quotes.
        said = shown.get("LoadError", "").partition(" ")[2].strip('"')
        return f"systemd cannot start {self._unit}: {said or shown['LoadState']}"

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
            raise WontStop(f"{self._unit} runs on after KILL: {_said(answer)}")

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
            raise refused(f"systemd refuses to {words[0]} {self._unit}: {_said(answer)}")

    def _systemctl(self, *words: str) -> programs.Ended:
        command = ("systemctl", f"--{self._scope}", "--no-pager", "--no-ask-password", *words)
        environ = _way_to_the_users() if self._scope == "user" else {}
        return programs.run(command, self._remaining, listen=True, environ=environ)


def _way_to_the_users() -> dict[str, str]:
    """What systemctl needs to reach the user's manager, which only a session has by itself."""
    if os.environ.get(FOLDER) or os.environ.get(BUS):
        return {}
    folder = Path("/run/user", str(os.geteuid()))
    if not folder.is_dir():
        raise RuntimeUnavailable(
            f"the user's systemd cannot be reached: {FOLDER} is not set and there is no {folder};"
            " loginctl enable-linger has it run without a session"
        )
    return {FOLDER: str(folder)}


def _condition(shown: Mapping[str, str]) -> str:
    """Its state, and how it ended last and how often where that went wrong."""
    words = f"{shown['ActiveState']} ({shown['SubState']})"
    if shown.get("Result", "success") != "success":
        words += f": {shown['Result']}, status {shown.get('ExecMainStatus', '?')}"
    restarts = shown.get("NRestarts", "0")
    return words if restarts in {"", "0"} else f"{words}, started again {restarts} times by systemd"


def _said(answer: programs.Ended) -> str:
    """What went wrong; beside it systemctl gives hints and warnings."""
    lines = (line for line in answer.errors.splitlines() if line.startswith("Failed to "))
    return next(lines, answer.complaint)[:200]

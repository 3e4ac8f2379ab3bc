"""How a target's process is inspected, stopped, started and replaced.

A target's policy names its ``runtime``; ``manage`` opens it. What each kind needs is imported when
it is first used.
"""

from __future__ import annotations

from recovery.runtime.process import Process, ProcessState, Readiness, Ready, Remaining, await_ready
from recovery.runtime.settings import (
    CommandRuntime,
    DockerRuntime,
    Runtime,
    SupervisorRuntime,
    SystemdRuntime,
)

__all__ = [
    "CommandRuntime",
    "DockerRuntime",
    "Process",
    "ProcessState",
    "Readiness",
    "Ready",
    "Remaining",
    "Runtime",
    "SupervisorRuntime",
    "SystemdRuntime",
    "await_ready",
    "manage",
]


def manage(runtime: Runtime, remaining: Remaining, url: str | None = None) -> Process:
    """The process of a runtime; everything done with it ends when ``remaining`` does.

    ``url``: where it serves. A process of ``kind: command`` that somebody else started is known by
    its port there.

    Raises ``RuntimeUnavailable`` where what the kind needs is not installed.
    """
    match runtime:
        case DockerRuntime():
            from recovery.runtime.container import Container

            return Container(runtime, remaining)
        case SystemdRuntime():
            from recovery.runtime.systemd import Unit

            return Unit(runtime, remaining)
        case SupervisorRuntime():
            from recovery.runtime.supervisor import Program

            return Program(runtime, remaining)
        case CommandRuntime():
            from recovery.runtime.command import Command

            return Command(runtime, remaining, url)

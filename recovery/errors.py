"""What can break, as one small tree. Refusals and degraded modes are values, never exceptions.

RecoveryError
├── ConfigError               the policy file is wrong
├── InvalidEvent              an event names something that does not exist or may not be named
├── UnknownRecovery           no recovery or approval has that id
├── NotPending                the approval was already decided
├── ControlPlaneUnavailable   the control Redis cannot be reached            (transient)
├── LeaseLost                 somebody else owns this recovery now
├── SetupError                this machine lacks something the command needs
└── RemedyError               a remedy could not do its work
    ├── TargetUnreachable     the target does not answer                     (transient)
    ├── TargetRefused         the target answers, and says no: credentials, permissions
    ├── StillUnhealthy        the remedy ran; the probe does not agree       (transient)
    ├── DeadlineExceeded      the strategy's own time is over
    ├── NothingKept           what is to be deleted cannot be put aside first: disk, budget
    ├── NothingFreed          the remedy found nothing that it could give back
    ├── WorkerLost            the worker died and its recovery could not be resumed
    └── RemedyCrashed         the remedy raised something that is not in this tree
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias

Facts: TypeAlias = dict[str, Any]


class RecoveryError(Exception):
    """The root: a sentence for a person, and JSON-safe facts for a machine.

    Both are positional arguments of the exception, so that pickle and Celery's JSON results,
    which rebuild an exception from its ``args``, lose nothing.
    """

    code: ClassVar[str] = "error"
    transient: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, facts: Facts | None = None) -> None:
        super().__init__(message, facts or {})

    @property
    def message(self) -> str:
        return str(self.args[0])

    @property
    def facts(self) -> Facts:
        facts: Facts = self.args[1] if len(self.args) > 1 else {}
        return facts

    def __str__(self) -> str:
        return self.message


class ConfigError(RecoveryError):
    """``facts``: ``problems``, a list of ``{file, line, key, problem, allowed}``."""

    code = "config_error"
    exit_code = 6


class InvalidEvent(RecoveryError):
    """``facts``: ``field``, ``value`` and, where there is a closed set, ``allowed``."""

    code = "invalid_event"
    exit_code = 2


class UnknownRecovery(RecoveryError):
    code = "unknown_recovery"
    exit_code = 2


class NotPending(RecoveryError):
    code = "not_pending"
    exit_code = 3


class ControlPlaneUnavailable(RecoveryError):
    code = "control_plane_unavailable"
    transient = True
    exit_code = 5


class LeaseLost(RecoveryError):
    code = "lease_lost"


class SetupError(RecoveryError):
    code = "setup_error"
    exit_code = 8


class RemedyError(RecoveryError):
    code = "remedy_failed"


class TargetUnreachable(RemedyError):
    code = "target_unreachable"
    transient = True


class TargetRefused(RemedyError):
    code = "target_refused"


class StillUnhealthy(RemedyError):
    code = "still_unhealthy"
    transient = True


class DeadlineExceeded(RemedyError):
    code = "deadline_exceeded"


class NothingKept(RemedyError):
    code = "nothing_kept"


class NothingFreed(RemedyError):
    """``facts``: who holds what, where that is known."""

    code = "nothing_freed"


class WorkerLost(RemedyError):
    code = "worker_lost"


class RemedyCrashed(RemedyError):
    code = "remedy_crashed"

"""What can break, as one small tree. Refusals and degraded modes are values, never exceptions.

RecoveryError
├── ConfigError               the policy file is wrong
├── InvalidEvent              an event names something that does not exist or may not be named
├── UnknownRecovery           no recovery or approval has that id
├── NotPending                the approval was already decided
├── ControlPlaneUnavailable   the control Redis cannot be reached            (transient)
├── LeaseLost                 somebody else owns this recovery now
├── SetupError                this machine lacks something the command needs
├── AuditNotSealed            closed days could not be written to files  (transient)
├── AuditDamaged              a file of the audit trail is not as it was written
├── AlertNotDelivered         a channel for alerts does not take them now        (transient)
├── AlertRefused              a channel for alerts will never take this one
├── Unreadable                what is stored was encrypted with a key that is not here
├── InferenceError            a model was asked and there is no answer
│   ├── NoRoad                neither the control plane nor the application names a usable road
│   ├── RequestRejected       what was asked is refused, and would be by any other road
│   ├── NoAnswer              no road gave an answer in time                 (transient)
│   └── StreamBroken          an answer broke off after its beginning was handed out (transient)
└── RemedyError               a remedy could not do its work
    ├── TargetUnreachable     the target does not answer                     (transient)
    ├── TargetRefused         the target answers, and says no: credentials, permissions
    │   └── CredentialsRefused    and will do so until a person changes them
    ├── StillUnhealthy        the remedy ran; the probe does not agree       (transient)
    ├── DeadlineExceeded      the strategy's own time is over
    ├── NotConfirmed          what can harm was asked for, and the probe finds another failure
    ├── NothingKept           what is to be deleted cannot be put aside first: disk, budget
    ├── TargetBusy            another repair or snapshot of it is at work    (transient)
    ├── NotCopied             a copy of the target as of one moment cannot be made   (transient)
    ├── SnapshotDamaged       a snapshot is not what was written, or does not hold what it should
    ├── NoSnapshot            there is no verified snapshot, or none of that name
    ├── NotConfigured         the policy lacks a key that this remedy needs
    ├── RuntimeUnavailable    Docker, systemd or supervisord does not answer     (transient)
    ├── NoSuchProcess         the runtime knows no such container, unit or program
    ├── NotReplaceable        a copy of this container cannot be made, or not be undone
    ├── RuntimeBusy           the engine still works on that name or container (transient)
    ├── OwnerChanged          somebody else replaced or removed it meanwhile
    ├── WontStop              it runs on after TERM, the grace and KILL
    ├── WontStart             it cannot be started, or ends at once
    ├── NeverReady            it was started and did not get ready in time
    ├── WrongProcess          what answers is not what was started: the policy names another
    ├── NotKept               what is to be brought back is not there: undone, discarded, lost
    ├── WouldOverwrite        what is to be brought back has newer data under the same names
    ├── SignInsLimited        the target takes no more sign-ins of this account for a while
    ├── MemoryAway            what is remembered of the target cannot be reached (transient)
    ├── VectorsLost           no vector is left of some records, and nothing gives them anew
    ├── RecordsUnreadable     a server hands out none of a collection, not even its documents
    ├── EmbeddingUnavailable  the policy's embedding function cannot be had, or gives other vectors
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
    needs_person: ClassVar[bool] = False
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


class AuditNotSealed(RecoveryError):
    """Nothing is lost by it: what is not sealed stays in the control Redis."""

    code = "audit_not_sealed"
    transient = True


class AuditDamaged(RecoveryError):
    """``facts``: ``file`` and ``finding``, one of ``recovery.audit.Kind``."""

    code = "audit_damaged"


class AlertNotDelivered(RecoveryError):
    code = "alert_not_delivered"
    transient = True


class AlertRefused(RecoveryError):
    code = "alert_refused"


class Unreadable(RecoveryError):
    code = "unreadable"
    exit_code = 6


class InferenceError(RecoveryError):
    """``facts``: ``failures``, a list of ``{road, kind, detail, status, retry_after, said}``."""

    code = "inference_failed"


class NoRoad(InferenceError):
    code = "no_road"
    exit_code = 6


class RequestRejected(InferenceError):
    code = "request_rejected"
    exit_code = 2


class NoAnswer(InferenceError):
    code = "no_answer"
    transient = True


class StreamBroken(InferenceError):
    code = "stream_broken"
    transient = True


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


class NotConfirmed(RemedyError):
    code = "not_confirmed"


class NothingKept(RemedyError):
    code = "nothing_kept"


class TargetBusy(RemedyError):
    code = "target_busy"
    transient = True


class NotCopied(RemedyError):
    code = "not_copied"
    transient = True


class SnapshotDamaged(RemedyError):
    """``facts``: ``snapshot``, its name."""

    code = "snapshot_damaged"


class NoSnapshot(RemedyError):
    """``facts``: ``snapshots``, the names that there are."""

    code = "no_snapshot"


class NotConfigured(RemedyError):
    """``facts``: ``key``, the one that is missing, below the target's block."""

    code = "not_configured"


class RuntimeUnavailable(RemedyError):
    code = "runtime_unavailable"
    transient = True


class NoSuchProcess(RemedyError):
    code = "no_such_process"


class NotReplaceable(RemedyError):
    code = "not_replaceable"


class RuntimeBusy(RemedyError):
    code = "runtime_busy"
    transient = True


class OwnerChanged(RemedyError):
    code = "owner_changed"


class WontStop(RemedyError):
    code = "wont_stop"


class WontStart(RemedyError):
    code = "wont_start"


class NeverReady(RemedyError):
    code = "never_ready"


class WrongProcess(RemedyError):
    code = "wrong_process"


class NotKept(RemedyError):
    """``facts``: ``id``, and ``kept``, the ids of which something is."""

    code = "not_kept"
    exit_code = 3


class WouldOverwrite(RemedyError):
    code = "would_overwrite"


class CredentialsRefused(TargetRefused):
    code = "credentials_refused"
    needs_person = True


class SignInsLimited(RemedyError):
    """``facts``: ``retry_after``, in seconds."""

    code = "sign_ins_limited"


class MemoryAway(RemedyError):
    code = "memory_away"
    transient = True


class VectorsLost(RemedyError):
    """``facts``: ``collection``, ``records`` and ``missing``."""

    code = "vectors_lost"


class RecordsUnreadable(RemedyError):
    """``facts``: ``collection``, and ``said``, the server's own words, where they are known."""

    code = "records_unreadable"


class EmbeddingUnavailable(RemedyError):
    code = "embedding_unavailable"


class NothingFreed(RemedyError):
    """``facts``: who holds what, where that is known."""

    code = "nothing_freed"


class WorkerLost(RemedyError):
    code = "worker_lost"


class RemedyCrashed(RemedyError):
    code = "remedy_crashed"

"""The answer to one message of Alertmanager: what was taken, and what was left and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Action(StrEnum):
    """What became of an alert that was taken."""

    SENT = "sent"
    KNOWN = "known"
    UNDER_WAY = "under_way"
    OVER = "over"
    WITHDRAWN = "withdrawn"


class Reason(StrEnum):
    """Why an alert was left."""

    SWITCHED_OFF = "switched_off"
    BEYOND_LIMIT = "beyond_limit"
    MALFORMED = "malformed"
    OUR_OWN = "our_own"
    UNMAPPED = "unmapped"
    UNKNOWN = "unknown"
    STALE = "stale"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """``recovery_id``: of the event that was made of it, now or before; None where none was."""

    fingerprint: str
    target: str
    failure_type: str
    action: Action
    recovery_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    fingerprint: str
    reason: Reason
    detail: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """``truncated``: alerts that Alertmanager itself left out of its message."""

    taken: tuple[Taken, ...] = ()
    left: tuple[Left, ...] = ()
    truncated: int = 0

    @property
    def sent(self) -> tuple[str, ...]:
        """The ids of the events that are on the broker now, each once."""
        ids = (one.recovery_id for one in self.taken if one.action is Action.SENT)
        return tuple(dict.fromkeys(found for found in ids if found is not None))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

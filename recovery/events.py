"""The nouns: target, failure event, decision, probe report, recovery and outcome. No behaviour.

Every noun is frozen and converts to and from a plain dictionary, which is what crosses the broker
and what is stored. Times are epoch milliseconds of the control plane's clock unless a name says
otherwise; durations are seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from operator import attrgetter
from typing import Any, Self, TypeAlias

from recovery.errors import InvalidEvent
from recovery.text import plain, readable

Figure: TypeAlias = float | int | str | bool | None
Figures: TypeAlias = Mapping[str, Figure]

ALL_ELSE_FAILED = "all_else_failed"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,62}[a-z0-9])?", re.IGNORECASE)


class Source(StrEnum):
    PROBE = "probe"
    ALERTMANAGER = "alertmanager"
    CLI = "cli"
    API = "api"

    @property
    def is_automatic(self) -> bool:
        """True where no person asked for this recovery."""
        return self is not Source.CLI


class State(StrEnum):
    """Where a recovery is on its way from event to audit entry."""

    AWAITING_APPROVAL = "awaiting_approval"
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    ADOPTED = "adopted"
    CONCLUDED = "concluded"


class Stage(StrEnum):
    """How far a running recovery got: what whoever resumes it may not do twice."""

    CLAIMED = "claimed"
    ACTING = "acting"
    ACTED = "acted"


class Result(StrEnum):
    """How a recovery ended. ``rerouted``: the target is as it was; people are served past it."""

    RECOVERED = "recovered"
    REROUTED = "rerouted"
    FAILED = "failed"
    NOT_NEEDED = "not_needed"
    DRY_RUN = "dry_run"
    DENIED = "denied"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    UNCLAIMED = "unclaimed"
    UNDONE = "undone"
    NOT_UNDONE = "not_undone"

    @property
    def is_good(self) -> bool:
        return self in (
            Result.RECOVERED,
            Result.REROUTED,
            Result.NOT_NEEDED,
            Result.DRY_RUN,
            Result.UNDONE,
        )


class Verdict(StrEnum):
    ADMITTED = "admitted"
    REFUSED = "refused"
    AWAITING_APPROVAL = "awaiting_approval"
    DUPLICATE = "duplicate"


class Refusal(StrEnum):
    """Why an event does not become a recovery now."""

    DISABLED = "disabled"
    COOLDOWN = "cooldown"
    LIMIT = "limit"
    PROBATION = "probation"
    FLAPPING = "flapping"
    DEPENDENCY = "dependency"
    STORM = "storm"
    BUSY = "busy"
    AWAITING_APPROVAL = "awaiting_approval"
    NO_REMEDY = "no_remedy"
    REROUTED = "rerouted"
    NOT_KEPT = "not_kept"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True, order=True)
class TargetRef:
    """One instance of a component, written ``redis/cache``."""

    component: str
    name: str = "default"

    def __post_init__(self) -> None:
        for part in (self.component, self.name):
            if not _NAME.fullmatch(part):
                raise InvalidEvent(
                    f"{part[:80]!r} cannot name a target: use letters, digits, '.', '_' and '-'",
                    {"field": "target", "value": part[:80]},
                )

    @classmethod
    def parse(cls, text: str) -> Self:
        component, _, name = text.partition("/")
        return cls(component, name or "default")

    @classmethod
    def named(cls, name: str, component: str | None = None) -> Self:
        """As people name one: ``redis/cache``, or ``cache`` beside its component.

        Raises ``InvalidEvent`` where the two differ, or nobody says the component.
        """
        of, _, short = name.rpartition("/")
        if not of and component is None:
            raise InvalidEvent(
                f"of which component is {name!r}? Write component/target, as redis/cache",
                {"field": "target", "value": name},
            )
        if of and component not in (None, of):
            raise InvalidEvent(f"{name} is no target of {component}", {"field": "target"})
        return cls(of or str(component), short)

    def __str__(self) -> str:
        return f"{self.component}/{self.name}"


_SAID = (
    "failure_type",
    "strategy",
    "context",
    "correlation_id",
    "by",
    "reason",
    "require_approval",
    "dry_run",
    "force",
    "undo_of",
    "overwrite",
    "host",
)
_what_is_said = attrgetter(*_SAID)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureEvent:
    """Something broke, or a person wants a remedy run. Names things; never defines them.

    ``undo_of``: the recovery to undo; its strategy is then this event's, and ``host`` the one on
    which it kept what it deleted. ``overwrite``: newer data under the same names may be replaced.
    """

    id: str
    target: TargetRef
    failure_type: str | None = None
    strategy: str | None = None
    context: Mapping[str, Any] = field(default_factory=dict)
    source: Source = Source.API
    correlation_id: str | None = None
    by: str | None = None
    reason: str | None = None
    require_approval: bool = False
    dry_run: bool = False
    force: bool = False
    undo_of: str | None = None
    overwrite: bool = False
    host: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Without the fields that say nothing, to keep stored events small."""
        said = zip(_SAID, _what_is_said(self), strict=True)
        return {
            "id": self.id,
            "target": str(self.target),
            "source": self.source.value,
            **{name: value for name, value in said if value},
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        known = dict(plain)
        known["target"] = TargetRef.parse(known["target"])
        known["source"] = Source(known.get("source", Source.API))
        return cls(**known)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """What a probe read from the real target: healthy, or one failure type, and the figures."""

    healthy: bool
    failure_type: str | None = None
    summary: str = ""
    figures: Figures = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "summary", readable(self.summary))
        object.__setattr__(self, "figures", plain(self.figures))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        return cls(**plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of a remedy's journal. ``planned`` marks what a dry run would have done."""

    text: str
    at_seconds: float
    figures: Figures = field(default_factory=dict)
    planned: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", readable(self.text))
        object.__setattr__(self, "figures", plain(self.figures))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        return cls(**plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The gate's answer. ``retry_after`` is in seconds, where waiting would help."""

    recovery_id: str
    verdict: Verdict
    strategy: str | None = None
    reason: Refusal | None = None
    detail: str = ""
    retry_after: float | None = None

    @property
    def admitted(self) -> bool:
        return self.verdict is Verdict.ADMITTED

    def as_dict(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if v is not None}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        known = dict(plain)
        known["verdict"] = Verdict(known["verdict"])
        if known.get("reason"):
            known["reason"] = Refusal(known["reason"])
        return cls(**known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a recovery ended, with what the probes read before and after.

    ``proof``: what was probed instead of the target, where the remedy leads around it.
    ``needs_person``: nothing automatic will do better.
    """

    result: Result
    error: str | None = None
    detail: str = ""
    before: ProbeReport | None = None
    after: ProbeReport | None = None
    proof: ProbeReport | None = None
    needs_person: bool = False
    attempts: int = 0
    duration: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", readable(self.detail))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        known = dict(plain)
        known["result"] = Result(known["result"])
        for probe in ("before", "after", "proof"):
            if known.get(probe):
                known[probe] = ProbeReport.from_dict(known[probe])
        return cls(**known)


@dataclass(frozen=True, slots=True, kw_only=True)
class PastOutcome:
    """What selection remembers of one concluded recovery of a target."""

    strategy: str
    failure_type: str | None
    result: Result
    at_ms: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        return cls(**{**plain, "result": Result(plain["result"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """An admitted recovery on its way to the worker that runs its strategy.

    ``host``: the only one that can run it, because what it needs is kept there.
    """

    recovery_id: str
    target: TargetRef
    strategy: str
    host: str | None = None

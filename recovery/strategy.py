"""How a component, its probe and its strategies are declared; ``finding`` finds them by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from recovery.errors import InvalidEvent
from recovery.events import Figure, ProbeReport
from recovery.routes import Route

T = TypeVar("T")

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(value: object) -> object:
    """``30m`` → 1800.0; a number is seconds already. Raises ``ValueError`` for other text."""
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is not a duration; write for instance 500ms, 30s, 30m, 1h, 7d")
    return float(match[1]) * _SECONDS[match[2]]


SHORTEST, LONGEST = 0.001, 100 * 365 * 86_400.0

Duration = Annotated[
    float,
    BeforeValidator(seconds),
    Field(ge=SHORTEST, le=LONGEST),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": SHORTEST, "maximum": LONGEST},
                {"type": "string", "pattern": f"^\\s*{_DURATION.pattern}\\s*$"},
            ]
        }
    ),
]
"""Seconds as a float, written in the policy as a number or as ``30s``, ``5m``, ``24h``."""

COMPONENTS = ("redis", "chromadb", "openwebui", "system")


class StrictModel(BaseModel):
    """Everything that is read from outside: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False)


class Parameters(StrictModel):
    """The keys that a strategy's own block of the policy may hold beside the common ones."""

    def lack(self) -> str | None:
        """What the policy must say before the strategy can run; None where it can."""
        return None

    @property
    def sets_degraded_mode(self) -> bool:
        """Whether the degraded mode is set where the strategy leads people around its target."""
        return True


class Scope(StrictModel):
    """What an event's context may say to this strategy: a smaller scope, never a new remedy."""


class ProbeSettings(StrictModel):
    """How one target is probed, where that differs from ``detection``.

    ``timeout`` is what one look may take; ``enabled: false`` leaves the target to other detectors.
    """

    enabled: bool = True
    every: Annotated[Duration, Field(ge=1, le=3600)] | None = None
    deep_every: Annotated[Duration, Field(ge=1, le=86_400)] | None = None
    timeout: Annotated[Duration, Field(le=60)] | None = None
    failures: int | None = Field(default=None, ge=1, le=20)
    of: int | None = Field(default=None, ge=1, le=20)


class TargetModel(StrictModel):
    """One target's block in the policy.

    ``host`` binds the target to one host: its probes and remedies then run on that host's queues.
    ``depends_on`` names the targets that it stands on: while one of them fails, this one's failure
    is taken for a consequence. ``unattended`` names strategies that may run on this target without
    a person, whatever they need elsewhere.
    ``selectors`` names the context keys by which an event may pick this target, each an attribute
    or property of the model.
    """

    selectors: ClassVar[tuple[str, ...]] = ()

    host: str | None = None
    depends_on: tuple[str, ...] = ()
    unattended: tuple[str, ...] = ()
    probe: ProbeSettings = ProbeSettings()
    max_attempts_per_hour: int | None = Field(default=None, ge=1)
    cooldown_seconds: Duration | None = None

    def is_selected_by(self, chosen: Mapping[str, Any]) -> bool:
        return all(getattr(self, name) == value for name, value in chosen.items())

    def completed(
        self,
        name: str,  # noqa: ARG002 - for the models that override it
        here: str,  # noqa: ARG002
        strategies: Mapping[str, Parameters],  # noqa: ARG002
        integration: Mapping[str, Any],  # noqa: ARG002
    ) -> Self:
        """The target with what the rest of the policy says of it.

        ``name`` is its own, ``here`` this host's, ``strategies`` the component's by name,
        ``integration`` that section of the policy.
        """
        return self

    def contradiction(self) -> str | None:
        """What cannot be as the policy says, once the target is completed."""
        return None

    def reminded(self, memory: Memory) -> Self:  # noqa: ARG002 - for the models that override it
        """The target with what the control plane remembers of it; most need nothing of that."""
        return self


class Memory(Protocol):
    """What the control plane remembers of one target for every host; asked anew at each call.

    Every call raises ``MemoryAway``. ``recovery_id`` is None outside of a recovery.
    """

    recovery_id: str | None

    def route(self) -> Route | None:
        """By which road applications reach it now; None where nobody has said so yet."""
        ...

    def reroute(self, **changes: Any) -> Route:
        """Change the route and tell applications, in one step; raises ``LeaseLost``."""
        ...

    def hold(self, name: str, value: str, seconds: float) -> bool:
        """Remember a value for so long, on every host; False where the name has one already."""
        ...

    def held(self, name: str) -> str | None: ...

    def drop(self, name: str, value: str) -> None:
        """Forget it, where it still is this value."""
        ...


class Kept(Protocol):
    """What one recovery put aside on this host, to be brought back until its retention ends.

    ``folder`` is private to the recovery, the same one when it is resumed, and may hold any files.
    ``facts`` is JSON-safe: what whoever brings it back has to know; never a secret. One of them is
    read by whoever lists what is kept: ``lies_beside`` names the folders of this host that are kept
    where they were, and is None where something is kept on a server, whose disk nobody sees.
    """

    recovery_id: str
    folder: Path
    facts: Mapping[str, Any]

    def store(self, summary: str, **facts: Any) -> None:
        """Merge facts and the one-line summary of what is kept; on disk before it returns."""
        ...

    def room(self) -> int:
        """Bytes that may still be kept, by the disk budget and the free space."""
        ...


class Journal(Protocol):
    """What a remedy is handed to work through: its deadline, its scope and its diary."""

    dry_run: bool
    scope: Scope
    recovery_id: str
    overwrite: bool
    """Whether an undo may replace newer data, which it then keeps first."""
    own_prefix: str
    """What every key of the control plane begins with, wherever it is found."""

    def keep(self) -> Kept:
        """Where this recovery puts aside what it deletes or replaces; raises ``NothingKept``."""
        ...

    def remaining(self) -> float:
        """Seconds until the strategy's deadline; raises ``DeadlineExceeded`` when it has passed."""
        ...

    def note(self, text: str, **figures: Figure) -> None:
        """Write down something observed."""
        ...

    def change(self, text: str, action: Callable[[], T], **figures: Figure) -> T | None:
        """Do something that changes the target; in a dry run only say so, and return ``None``."""
        ...

    def progress(self, text: str, percent: int) -> None:
        """Write down how far something long has come, where whoever waits for it can see it."""
        ...

    def tell_applications(self, text: str, notice: str) -> None:
        """Tell the target's applications, through the channel, to act on ``notice``."""
        ...


Remedy = Callable[[Any, Any, Journal], None]
Undo = Callable[[Any, Any, Journal, Kept], None]
"""Target, parameters, journal, what is kept: bring it back, or raise a ``RemedyError``."""
Discard = Callable[[Any, Any, Kept], None]
"""Give up what is kept outside its folder, once its retention has ended; may be called again."""
Probe = Callable[[Any, float], ProbeReport]
Evidence = Callable[[Any, float], dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureType:
    """A way in which a component fails.

    ``is_a`` names the wider type whose remedies also serve this one. ``remediable`` is false
    where acting would harm or cannot help: a server that is still loading, a refused password.
    ``needs_person`` calls one at once, since nothing automatic will ever help.
    """

    name: str
    summary: str
    is_a: str | None = None
    remediable: bool = True
    needs_person: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """A named remedy of a component; ``remedy`` is None where this release only knows its name.

    ``proof`` is a ``module:function`` reference to a probe that proves this remedy instead of the
    component's: one that leads people around the target does not mend it, and says so.
    ``safe_alone``: a host may run it without the control plane's leave, as nothing is lost and
    nothing harmed when two do so at once. ``judges_itself``: the remedy finds out what is wrong
    with what it changes, and changes nothing else, so that a healthy probe does not spare it.
    ``degrades``: while it runs the target cannot be used, and applications are told so.
    ``undo`` and ``discard`` are ``module:function`` references to an ``Undo`` and a ``Discard``,
    imported when first used.
    """

    component: str
    name: str
    summary: str
    parameters: type[Parameters] = Parameters
    scope: type[Scope] = Scope
    remedy: Remedy | None = None
    destructive: bool = False
    safe_alone: bool = False
    requires_approval: bool = False
    judges_itself: bool = False
    degrades: bool = False
    undo: str | None = None
    discard: str | None = None
    proof: str | None = None
    timeout_seconds: float = 5.0
    max_retries: int = 0
    backoff_seconds: float = 0.5

    @property
    def full_name(self) -> str:
        return f"{self.component}.{self.name}"

    @property
    def is_available(self) -> bool:
        return self.remedy is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A kind of thing that is repaired.

    ``probe``, ``light_probe`` and ``evidence`` are ``module:function`` references, imported when
    first used. ``light_probe`` is for components whose ``probe`` costs too much for every few
    seconds: it sees less, and nothing that the other would not see.
    ``strategies`` names the files of this folder that hold one strategy each; ``planned`` declares
    strategies that a policy may already configure and that cannot run yet. ``probe_seconds`` is
    the longest that one probe may take; always shorter than a strategy around it.
    """

    name: str
    target: type[TargetModel]
    failure_types: tuple[FailureType, ...]
    strategies: tuple[str, ...] = ()
    planned: tuple[Strategy, ...] = ()
    probe: str | None = None
    light_probe: str | None = None
    evidence: str | None = None
    probe_seconds: float = 2.0

    def failure_type(self, name: str) -> FailureType | None:
        return next((known for known in self.failure_types if known.name == name), None)


def strategy(
    *,
    component: str,
    summary: str,
    parameters: type[Parameters] = Parameters,
    scope: type[Scope] = Scope,
    destructive: bool = False,
    safe_alone: bool = False,
    requires_approval: bool = False,
    judges_itself: bool = False,
    degrades: bool = False,
    undo: str | None = None,
    discard: str | None = None,
    proof: str | None = None,
    timeout_seconds: float = 5.0,
    max_retries: int = 0,
    backoff_seconds: float = 0.5,
) -> Callable[[Remedy], Strategy]:
    """Declare the decorated function as the strategy of its name. Figures are defaults."""

    def declare(remedy: Remedy) -> Strategy:
        return Strategy(
            component=component,
            name=remedy.__name__,
            summary=summary,
            parameters=parameters,
            scope=scope,
            remedy=remedy,
            destructive=destructive,
            safe_alone=safe_alone,
            requires_approval=requires_approval,
            judges_itself=judges_itself,
            degrades=degrades,
            undo=undo,
            discard=discard,
            proof=proof,
            timeout_seconds=timeout_seconds,
            max_retries=max_retries,
            backoff_seconds=backoff_seconds,
        )

    return declare


def unknown(field_name: str, value: str, allowed: Iterable[str]) -> InvalidEvent:
    """The one way to say that something has no such name, with the names that there are."""
    names = sorted(allowed)
    return InvalidEvent(
        f"unknown {field_name} {value[:80]!r}; known: {', '.join(names) or 'none'}",
        {"field": field_name, "value": value[:80], "allowed": names},
    )

"""What the API says and accepts, as pydantic models: they are its OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from recovery.messages import Line, Word
from recovery.strategy import Duration, StrictModel

Reason = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]


class Answer(BaseModel):
    """What we say; readers should pass over what they do not know."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class Failed(Answer):
    """Every error."""

    error: str
    message: str
    facts: dict[str, Any] = Field(default_factory=dict)


class Alive(Answer):
    status: str


class TargetReadiness(Answer):
    ready: bool
    state: str


class ComponentReadiness(Answer):
    ready: bool
    targets: dict[str, TargetReadiness]


class Readiness(Answer):
    """``ready`` where every target of every component works and the control plane answers."""

    ready: bool
    control_plane: bool
    components: dict[str, ComponentReadiness]


class Probe(Answer):
    """What the last probe found, and the judgement over several."""

    state: str
    since_ms: int
    healthy: bool
    failure_type: str | None
    summary: str
    figures: dict[str, Any]
    at_ms: int
    latency_ms: float
    depth: str
    host: str


class Target(Answer):
    """One target now. Seconds are what is left of something; None where there is none."""

    target: str
    component: str
    name: str
    state: str
    level: int
    attempts_left: int
    attempts_in_hour: int
    max_attempts_per_hour: int
    cooldown_seconds: float | None
    on_probation: bool
    recovery_id: str | None
    phase: str | None
    holder: str | None
    doing: str | None
    percent: int | None
    last_result: str | None
    last_strategy: str | None
    degraded_mode: str | None
    unavailable_capabilities: tuple[str, ...]
    disabled_by: str | None
    host: str | None
    probe: Probe | None


class Targets(Answer):
    targets: tuple[Target, ...]


class Worker(Answer):
    node: str
    host: str
    pid: int
    version: str
    queues: tuple[str, ...]
    concurrency: int
    active: int
    age: float
    alive: bool


class Queue(Answer):
    name: str
    length: int
    oldest_seconds: float | None
    consumers: int


class Workers(Answer):
    workers: tuple[Worker, ...]
    queues: tuple[Queue, ...]
    unconsumed_queues: tuple[str, ...]


class Approval(Answer):
    id: str
    target: str
    strategy: str
    since: str
    expires: str
    failure_type: str | None
    asked_by: str | None
    reason: str | None
    approved_by: str | None


class Approvals(Answer):
    approvals: tuple[Approval, ...]


class DegradedMode(Answer):
    target: str
    mode: str
    since: str
    recovery_id: str
    available_capabilities: tuple[str, ...]
    unavailable_capabilities: tuple[str, ...]


class DegradedModes(Answer):
    degraded_modes: tuple[DegradedMode, ...]


class Disabled(Answer):
    scope: str
    by: str
    reason: str
    seconds_left: float | None


class DisabledScopes(Answer):
    disabled: tuple[Disabled, ...]


class Kept(Answer):
    recovery_id: str
    target: str
    strategy: str
    summary: str
    host: str
    bytes: int | None
    kept_ms: int
    expires_ms: int
    state: str
    undone_by: str | None
    can_be_undone: bool


class KeptList(Answer):
    kept: tuple[Kept, ...]


class Recoveries(Answer):
    """Audit entries, newest first. ``next`` is the cursor of the next page, if there is one."""

    recoveries: tuple[dict[str, Any], ...]
    next: str | None


class Recovery(Answer):
    """One recovery whole."""

    id: str
    target: str
    strategy: str
    state: str
    level: int
    attempts: int
    holder: str | None
    event: dict[str, Any]
    decision: str | None
    decided_by: str | None
    decided_why: str | None
    received_ms: int
    started_ms: int | None
    concluded_ms: int | None
    before: dict[str, Any] | None
    outcome: dict[str, Any] | None
    steps: tuple[dict[str, Any], ...]
    evidence: dict[str, Any] | None


class Status(Answer):
    """Totals and everything that a person wants to know first."""

    recoveries: int
    recovered: int
    failed: int
    refused: int
    success_rate: float | None
    targets: tuple[Target, ...]
    degraded_modes: tuple[DegradedMode, ...]
    pending_approvals: tuple[Approval, ...]
    disabled: tuple[Disabled, ...]


class AlertReceipt(Answer):
    """What became of each alert; ``left`` says why one was not made into an event."""

    taken: tuple[dict[str, Any], ...]
    left: tuple[dict[str, Any], ...]
    truncated: int


class Accepted(Answer):
    """What was asked for is on its way; ``url`` says how it goes."""

    id: str
    url: str


class Decided(Answer):
    id: str
    decision: str
    by: str


class Trigger(StrictModel):
    """Ask for a recovery: a failure type or a strategy. ``by`` is a person's name."""

    component: Word
    failure_type: Word | None = None
    target: Word | None = None
    strategy: Word | None = None
    context: dict[str, Any] = Field(default_factory=dict)
    correlation_id: Word | None = None
    by: Line | None = None
    reason: Line | None = None
    require_approval: bool = False
    dry_run: bool = False
    force: bool = False


class Decision(StrictModel):
    """``by`` may be left out by whoever is signed in with a name."""

    by: Line | None = None
    reason: Reason = ""
    force: bool = False


class Undo(StrictModel):
    by: Line | None = None
    reason: Line | None = None
    overwrite: bool = False
    dry_run: bool = False


class Scope(StrictModel):
    """Everything, a component, or one of its targets."""

    component: Word | None = None
    target: Word | None = None
    by: Line | None = None


class Disable(Scope):
    """``duration`` as ``30m`` or in seconds; without it, until enabled."""

    reason: Line
    duration: Duration | None = None


class Enable(Scope):
    reason: Reason = ""


class Enabled(Answer):
    scope: str
    was_disabled: bool

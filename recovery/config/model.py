"""The typed model of ``recovery_config.yml``. Reads nothing: see ``loading``.

The block of each component and each strategy is built from what the component declares, so that a
new strategy brings its keys, its checks and its part of the JSON Schema with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, Union, cast

from pydantic import Field, SecretStr, create_model, model_validator

from recovery.config.alerting import (
    AlertmanagerSection,
    ChannelName,
    MessageSection,
    ReceiveSection,
    Severity,
    WebAddress,
    WebhookSection,
)
from recovery.credentials import one_of
from recovery.events import ALL_ELSE_FAILED
from recovery.finding import find_component, find_strategy, strategy_names
from recovery.runtime import Runtime
from recovery.strategy import COMPONENTS, Component, Duration, Strategy, StrictModel

Priority = Literal["critical", "high", "medium", "low"]
Channel = Literal["prometheus_alertmanager", "webhooks", "messages"]

SEVERITIES: Mapping[Priority, Severity] = {
    "critical": "P0",
    "high": "P1",
    "medium": "P2",
    "low": "P3",
}


class StrategyBlock(StrictModel):
    """The keys that every strategy has."""

    name: str
    conditions: tuple[str, ...] = ()
    auto_trigger: bool = True
    requires_approval: bool = False
    priority: Priority | None = None
    timeout_seconds: Duration = 5.0
    max_retries: int = Field(default=0, ge=0, le=100)
    backoff_seconds: Duration = 0.5
    backoff_multiplier: float = Field(default=2.0, ge=1)


class ComponentBlock(StrictModel):
    """A component's part of the policy; the fields that it narrows come from its declaration."""

    priority: Priority = "medium"
    max_attempts_per_hour: int | None = Field(default=None, ge=1)
    cooldown_seconds: Duration | None = None
    strategies: tuple[Any, ...] = ()
    targets: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [strategy.name for strategy in self.strategies]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"strategy {', '.join(twice)} is configured twice")
        return self


class RecoverySection(StrictModel):
    """Limits for every target. Components are added by ``policy_document``."""

    max_attempts_per_hour: int = Field(default=3, ge=1)
    cooldown_seconds: Duration = 300.0
    probation_seconds: Duration = 600.0
    effective_after_seconds: Duration = 300.0
    queue_wait_seconds: Duration = 30.0


class AlertingSection(StrictModel):
    """``runbook_url``: the folder in which people find the runbooks."""

    enabled: bool = True
    channels: tuple[Channel, ...] = ()
    severity_mapping: dict[Priority, Severity] = Field(default_factory=lambda: dict(SEVERITIES))
    alert_on_recovery: bool = True
    alert_on_cooldown: bool = True
    alert_on_degraded_mode: bool = True
    receive: ReceiveSection = ReceiveSection()
    alertmanager: AlertmanagerSection = AlertmanagerSection()
    webhooks: dict[ChannelName, WebhookSection] = Field(default_factory=dict)
    messages: dict[ChannelName, MessageSection] = Field(default_factory=dict)
    runbook_url: WebAddress | None = None


class DegradedModeSection(StrictModel):
    """What still works in a mode and what does not, in the words that applications ask with."""

    available_capabilities: tuple[str, ...] = ()
    unavailable_capabilities: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _sides_differ(self) -> Self:
        both = sorted(set(self.available_capabilities) & set(self.unavailable_capabilities))
        if both:
            raise ValueError(f"both available and unavailable: {', '.join(both)}")
        return self


class AuditSection(StrictModel):
    """``takeover_after``: how long the host with the sealed files may be silent before another
    one goes on with them.
    """

    enabled: bool = True
    audit_file: str | None = None
    retention_days: float = Field(default=30, gt=0, le=36_500)
    compression_enabled: bool = True
    takeover_after: Duration = 7 * 86_400.0


class FlappingSection(StrictModel):
    """A target that went up and down ``changes`` times within ``window`` is left alone until it
    has not done so for ``hold``."""

    changes: int = Field(default=6, ge=2, le=100)
    window: Duration = 600.0
    hold: Duration = 600.0


class StormSection(StrictModel):
    """When more than ``share`` of all targets fail at once, and at least ``least``, only those
    that others depend on are repaired, until it has been over for ``calm``. 1 never happens."""

    share: float = Field(default=0.5, gt=0, le=1)
    least: int = Field(default=5, ge=2)
    calm: Duration = 60.0


class DetectionSection(StrictModel):
    """How targets are probed: a light look every ``every``, and where the component has a deeper
    one, that at ``integration.health_check_interval_seconds``.

    ``failures`` of the last ``of`` looks make a failure; after a first one the next look comes
    ``confirm_after``. Who is healthy for ``healthy_after`` leaves its degraded mode and its level
    without a remedy.
    """

    every: Annotated[Duration, Field(ge=1, le=3600)] = 5.0
    failures: int = Field(default=2, ge=1, le=20)
    of: int = Field(default=3, ge=1, le=20)
    confirm_after: Annotated[Duration, Field(le=60)] = 1.0
    healthy_after: Duration = 60.0
    flapping: FlappingSection = FlappingSection()
    storm: StormSection = StormSection()

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        if self.failures > self.of:
            raise ValueError("failures must not be more than of")
        return self


class IntegrationSection(StrictModel):
    health_check_integration: bool = True
    health_check_interval_seconds: Duration = 30.0
    chromadb_rollback_enabled: bool = True
    snapshot_dir: str | None = None
    prometheus_alertmanager: WebAddress | None = None
    alert_on_recovery: bool = True
    metrics_export_interval_seconds: Duration = 30.0
    export_recovery_metrics: bool = True
    consume_celery_default_queue: bool = True


class ApprovalsSection(StrictModel):
    expires_after: Duration = 86_400.0
    different_person: bool = False


class FailsafeSection(StrictModel):
    """What a host does by itself while the control plane is away.

    ``unbound_host`` is the one host that then looks after targets that are bound to none.
    ``reserve_mb`` of the state directory's disk are given up when that is full; 0 for none.
    """

    enabled: bool = True
    after_seconds: Duration = 10.0
    interval_seconds: Duration = 5.0
    unbound_host: str | None = None
    reserve_mb: float = Field(default=16, ge=0)


class ControlPlaneSection(StrictModel):
    """How the control plane's own Redis is run, so that it can be restarted.

    ``host`` is the one on which it runs; without it, every host that knows the runtime.
    """

    host: str | None = None
    runtime: Runtime | None = None


class EscalationSection(StrictModel):
    failures_for_level_3: int = Field(default=3, ge=1)


class UndoSection(StrictModel):
    """How long and where a host keeps what its remedies deleted or replaced.

    ``disk_budget_mb`` holds for the host; 0 sets none. ``directory``: under the state directory
    by default.
    """

    retention: Duration = 7 * 86_400.0
    disk_budget_mb: int = Field(default=1024, ge=0)
    directory: str | None = None


class HttpSection(StrictModel):
    """How ``recovery serve`` listens, and who may ask it what.

    ``token`` is for all that changes state, ``read_token`` for reading alone, such as by
    Prometheus. ``public_url`` is where people and alerts find it, behind a proxy for instance;
    ``allowed_hosts`` are further names by which it may be called. ``trusted_proxies`` are the
    addresses whose word on the client's address counts. ``metrics_textfile`` is for node_exporter.
    """

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = Field(default=8787, ge=1, le=65535)
    token: SecretStr | None = None
    token_file: Path | None = None
    read_token: SecretStr | None = None
    read_token_file: Path | None = None
    public_url: str | None = Field(default=None, pattern=r"^https?://[^/?#@\s]+/?$")
    allowed_hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    max_body_kb: int = Field(default=4096, ge=1, le=65_536)
    requests_per_second: float = Field(default=50, gt=0)
    max_streams: int = Field(default=64, ge=1, le=10_000)
    metrics_textfile: Path | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        one_of("token", self.token, self.token_file)
        one_of("read_token", self.read_token, self.read_token_file)
        return self


class PolicyDocument(StrictModel):
    """The whole file; ``recovery`` is narrowed by ``policy_document``."""

    recovery: RecoverySection = RecoverySection()
    alerting: AlertingSection = AlertingSection()
    degraded_modes: dict[str, DegradedModeSection] = Field(default_factory=dict)
    audit: AuditSection = AuditSection()
    detection: DetectionSection = DetectionSection()
    integration: IntegrationSection = IntegrationSection()
    approvals: ApprovalsSection = ApprovalsSection()
    escalation: EscalationSection = EscalationSection()
    failsafe: FailsafeSection = FailsafeSection()
    control_plane: ControlPlaneSection = ControlPlaneSection()
    undo: UndoSection = UndoSection()
    http: HttpSection = HttpSection()


@cache
def policy_document() -> type[PolicyDocument]:
    """The file's model with every component and strategy that this release knows."""
    fields: dict[str, Any] = {name: (component_block(name) | None, None) for name in COMPONENTS}
    section: Any = create_model("Recovery", __base__=RecoverySection, **fields)
    return create_model("RecoveryPolicy", __base__=PolicyDocument, recovery=(section, section()))


@cache
def component_block(name: str) -> type[ComponentBlock]:
    """The model of one component's part of the file."""
    declared = find_component(name)
    blocks = [_strategy_block(declared, find_strategy(name, s)) for s in strategy_names(name)]
    one: Any = blocks[0] if len(blocks) == 1 else Union[tuple(blocks)]  # noqa: UP007 - built at run time
    if len(blocks) > 1:
        one = Annotated[one, Field(discriminator="name")]
    fields: dict[str, Any] = {
        "strategies": (tuple[one, ...], ()),
        "targets": (dict[str, declared.target], Field(default_factory=dict)),  # type: ignore[name-defined]
    }
    return create_model(f"{name.capitalize()}Component", __base__=ComponentBlock, **fields)


def _strategy_block(component: Component, declared: Strategy) -> type[StrategyBlock]:
    failures = [failure.name for failure in component.failure_types]
    condition = Literal[(*failures, ALL_ELSE_FAILED)]  # type: ignore[valid-type]
    fields: dict[str, Any] = {
        "name": (Literal[declared.name], ...),
        "conditions": (tuple[condition, ...], ()),
        "requires_approval": (bool, declared.requires_approval),
        "timeout_seconds": (Duration, declared.timeout_seconds),
        "max_retries": (Annotated[int, Field(ge=0, le=100)], declared.max_retries),
        "backoff_seconds": (Duration, declared.backoff_seconds),
    }
    bases: Any = (StrategyBlock, declared.parameters)
    built: Any = create_model(
        declared.full_name,
        __base__=bases,
        __doc__=declared.summary,
        **fields,
    )
    return cast("type[StrategyBlock]", built)

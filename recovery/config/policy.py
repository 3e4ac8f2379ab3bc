"""The policy as the rest of the code asks for it: components, strategies, targets, limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from recovery.config import dependencies
from recovery.config.model import (
    AlertingSection,
    ApprovalsSection,
    AuditSection,
    ComponentBlock,
    ControlPlaneSection,
    DegradedModeSection,
    DetectionSection,
    EscalationSection,
    FailsafeSection,
    HttpSection,
    IntegrationSection,
    PolicyDocument,
    Priority,
    StrategyBlock,
    UndoSection,
)
from recovery.events import TargetRef
from recovery.finding import find_component, find_strategy
from recovery.strategy import COMPONENTS, Parameters, Strategy, TargetModel, unknown

DEFAULT_TARGET = "default"
PROBE_QUEUES = "probe."
"""What the name of a queue of probes begins with; that of the same targets' remedies follows."""
_SWITCHES = {"chromadb.snapshot_rollback": "integration.chromadb_rollback_enabled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What holds for one target. Durations in seconds."""

    max_attempts_per_hour: int
    cooldown_seconds: float
    probation_seconds: float
    effective_seconds: float
    queue_wait_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Probing:
    """How one target is probed. Durations in seconds; ``deep_every`` is None where the component
    has no deeper probe than its light one."""

    every: float
    deep_every: float | None
    timeout: float
    failures: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyPolicy:
    """What the policy says of one strategy, with its declaration's defaults filled in."""

    component: str
    name: str
    conditions: tuple[str, ...]
    auto_trigger: bool
    requires_approval: bool
    priority: Priority | None
    timeout_seconds: float
    max_retries: int
    backoff_seconds: float
    backoff_multiplier: float
    parameters: Parameters
    declaration: Strategy
    switch: str | None = None
    """The key of the policy that switches it off, where one does."""

    @property
    def obstacle(self) -> str | None:
        """Why this release cannot run it as it is configured; None where it can."""
        if not self.declaration.is_available:
            return f"this release cannot run {self.declaration.full_name}"
        if self.switch is not None:
            return f"{self.declaration.full_name}: switched off by {self.switch}"
        lack = self.parameters.lack()
        return None if lack is None else f"{self.declaration.full_name}: {lack}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DegradedModePolicy:
    name: str
    available_capabilities: tuple[str, ...]
    unavailable_capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentPolicy:
    """One configured component. ``targets`` is never empty."""

    name: str
    priority: Priority
    strategies: tuple[StrategyPolicy, ...]
    targets: Mapping[str, TargetModel]
    max_attempts_per_hour: int | None
    cooldown_seconds: float | None


class Policy:
    """A loaded ``recovery_config.yml``, as it holds on the host of that name."""

    def __init__(self, document: PolicyDocument, file: Path, host: str) -> None:
        self.document = document
        self.file = file
        self.host = host
        self._limits: dict[TargetRef, Limits] = {}
        self._roots: dict[TargetRef, tuple[TargetRef, ...]] = {}

    @property
    def alerting(self) -> AlertingSection:
        return self.document.alerting

    @property
    def audit(self) -> AuditSection:
        return self.document.audit

    @property
    def detection(self) -> DetectionSection:
        return self.document.detection

    @property
    def integration(self) -> IntegrationSection:
        return self.document.integration

    @property
    def approvals(self) -> ApprovalsSection:
        return self.document.approvals

    @property
    def escalation(self) -> EscalationSection:
        return self.document.escalation

    @property
    def control_plane(self) -> ControlPlaneSection:
        return self.document.control_plane

    @property
    def failsafe(self) -> FailsafeSection:
        return self.document.failsafe

    @property
    def undo(self) -> UndoSection:
        return self.document.undo

    @property
    def http(self) -> HttpSection:
        return self.document.http

    @property
    def degraded_modes(self) -> Mapping[str, DegradedModeSection]:
        return self.document.degraded_modes

    @cached_property
    def components(self) -> Mapping[str, ComponentPolicy]:
        """Those that the file configures."""
        blocks = {name: getattr(self.document.recovery, name) for name in COMPONENTS}
        return MappingProxyType(
            {
                name: _component(name, block, self.host, self.document.integration)
                for name, block in blocks.items()
                if block is not None
            }
        )

    def component(self, name: str) -> ComponentPolicy:
        """Raises ``InvalidEvent`` where the file does not configure it."""
        if name not in self.components:
            raise unknown("component", name, self.components)
        return self.components[name]

    def strategy(self, component: str, name: str) -> StrategyPolicy:
        """Raises ``InvalidEvent`` where the file does not configure it."""
        configured = self.component(component).strategies
        for strategy in configured:
            if strategy.name == name:
                return strategy
        raise unknown("strategy", name, (strategy.name for strategy in configured))

    def serves(self, ref: TargetRef, strategy: str) -> bool:
        """Whether the file still configures a target and a strategy that it once did."""
        block = self.components.get(ref.component)
        return (
            block is not None
            and ref.name in block.targets
            and any(configured.name == strategy for configured in block.strategies)
        )

    def parameter(self, component: str, strategy: str, name: str) -> Any:
        """What a strategy's block says of one of its own keys; None where it has no block."""
        block = self.components.get(component)
        for configured in block.strategies if block else ():
            if configured.name == strategy:
                return getattr(configured.parameters, name)
        return None

    def target(self, ref: TargetRef) -> TargetModel:
        """Raises ``InvalidEvent`` where the file does not configure it."""
        targets = self.component(ref.component).targets
        if ref.name not in targets:
            raise unknown("target", ref.name, targets)
        return targets[ref.name]

    def queue(self, ref: TargetRef) -> str:
        """The component's queue, or that of the one host where the target can be repaired."""
        host = self.target(ref).host
        return f"{ref.component}.{host}" if host else ref.component

    def is_here_by_default(self, ref: TargetRef) -> bool:
        """Whether a target is this host's only because the file says of no host that it is."""
        written = getattr(self.document.recovery, ref.component).targets.get(ref.name)
        is_named = written is not None and written.host is not None
        return ref.name == DEFAULT_TARGET and not is_named and self.target(ref).host is not None

    def targets_of(self, host: str) -> tuple[TargetRef, ...]:
        """Those that can be repaired on this host alone."""
        return tuple(ref for ref in self.target_refs() if self.target(ref).host == host)

    def probe_queue(self, ref: TargetRef) -> str:
        """Where the target is probed: apart from its remedies, so that neither delays the other."""
        return f"{PROBE_QUEUES}{self.queue(ref)}"

    def probing(self, ref: TargetRef) -> Probing | None:
        """How a target is probed by schedule; None where it is not."""
        component = find_component(ref.component)
        own, everybody = self.target(ref).probe, self.detection
        wanted = self.integration.health_check_integration and own.enabled
        if not wanted or component.probe is None:
            return None
        deep = own.deep_every or self.integration.health_check_interval_seconds
        return Probing(
            every=own.every or everybody.every,
            deep_every=deep if component.light_probe else None,
            timeout=own.timeout or component.probe_seconds,
            failures=own.failures or everybody.failures,
            of=own.of or everybody.of,
        )

    @cached_property
    def dependencies(self) -> dependencies.Graph:
        """What each target declares to stand on; raises ``ValueError`` for an unknown name."""
        refs = self.target_refs()
        return {ref: tuple(dependencies.parse(self.target(ref).depends_on, refs)) for ref in refs}

    def roots(self, ref: TargetRef) -> tuple[TargetRef, ...]:
        """Everything that a target stands on, the nearest first."""
        known = self._roots.get(ref)
        if known is None:
            known = self._roots[ref] = dependencies.roots_of(self.dependencies, ref)
        return known

    def dependants(self, ref: TargetRef) -> tuple[TargetRef, ...]:
        return dependencies.dependants_of(self.dependencies, ref)

    @cached_property
    def foundations(self) -> frozenset[TargetRef]:
        """The targets on which others stand."""
        return frozenset(root for roots in self.dependencies.values() for root in roots)

    @cached_property
    def storm_size(self) -> int:
        """How many targets failing at once are a storm; 0 where there are too few for one."""
        everybody, storm = len(self.target_refs()), self.detection.storm
        size = max(storm.least, math.floor(storm.share * everybody) + 1)
        return size if size <= everybody else 0

    @cached_property
    def _target_refs(self) -> tuple[TargetRef, ...]:
        return tuple(
            TargetRef(component.name, target)
            for component in self.components.values()
            for target in component.targets
        )

    def target_refs(self) -> tuple[TargetRef, ...]:
        return self._target_refs

    def limits(self, ref: TargetRef) -> Limits:
        """The target's own limits, else the component's, else everybody's."""
        known = self._limits.get(ref)
        if known is None:
            known = self._limits[ref] = self._find_limits(ref)
        return known

    @property
    def everybodys_limits(self) -> Limits:
        """What holds where neither a component nor a target says otherwise."""
        everybody = self.document.recovery
        return Limits(
            max_attempts_per_hour=everybody.max_attempts_per_hour,
            cooldown_seconds=everybody.cooldown_seconds,
            probation_seconds=everybody.probation_seconds,
            effective_seconds=everybody.effective_after_seconds,
            queue_wait_seconds=everybody.queue_wait_seconds,
        )

    def _find_limits(self, ref: TargetRef) -> Limits:
        everybody = self.everybodys_limits
        component = self.component(ref.component)
        target = self.target(ref)
        return replace(
            everybody,
            max_attempts_per_hour=(
                target.max_attempts_per_hour
                or component.max_attempts_per_hour
                or everybody.max_attempts_per_hour
            ),
            cooldown_seconds=(
                target.cooldown_seconds or component.cooldown_seconds or everybody.cooldown_seconds
            ),
        )

    @property
    def longest_timeout_seconds(self) -> float:
        """Of the strategies that this release can run; 0 where there is none."""
        configured = (s for component in self.components.values() for s in component.strategies)
        return max((s.timeout_seconds for s in configured if s.declaration.is_available), default=0)

    def severity(self, component: str, strategy: str | None = None) -> str:
        """``P0`` … ``P3``, by the strategy's priority where it has one, else the component's."""
        priority = self.component(component).priority
        if strategy is not None:
            priority = self.strategy(component, strategy).priority or priority
        return self.alerting.severity_mapping.get(priority, "P2")

    def degraded_mode(self, ref: TargetRef) -> DegradedModePolicy | None:
        """The mode of a component that does not work, if the file describes one."""
        name = f"{ref.component}_unavailable"
        section = self.degraded_modes.get(name)
        if section is None:
            return None
        return DegradedModePolicy(
            name=name,
            available_capabilities=section.available_capabilities,
            unavailable_capabilities=section.unavailable_capabilities,
        )

    def failure_types(self, component: str) -> frozenset[str]:
        """What an event of this component may report."""
        return frozenset(failure.name for failure in find_component(component).failure_types)


def _component(
    name: str, block: ComponentBlock, host: str, integration: IntegrationSection
) -> ComponentPolicy:
    strategies = tuple(_strategy(name, strategy, integration) for strategy in block.strategies)
    parameters = {strategy.name: strategy.parameters for strategy in strategies}
    written = block.targets or {DEFAULT_TARGET: find_component(name).target()}
    shared = integration.model_dump()
    targets = {
        key: model.completed(key, host, parameters, shared) for key, model in written.items()
    }
    return ComponentPolicy(
        name=name,
        priority=block.priority,
        strategies=strategies,
        targets=MappingProxyType(targets),
        max_attempts_per_hour=block.max_attempts_per_hour,
        cooldown_seconds=block.cooldown_seconds,
    )


def _strategy(
    component: str, block: StrategyBlock, integration: IntegrationSection
) -> StrategyPolicy:
    declared = find_strategy(component, block.name)
    switch = _SWITCHES.get(declared.full_name)
    own = {name: getattr(block, name) for name in declared.parameters.model_fields}
    return StrategyPolicy(
        component=component,
        name=block.name,
        conditions=block.conditions,
        auto_trigger=block.auto_trigger,
        requires_approval=block.requires_approval,
        priority=block.priority,
        timeout_seconds=block.timeout_seconds,
        max_retries=block.max_retries,
        backoff_seconds=block.backoff_seconds,
        backoff_multiplier=block.backoff_multiplier,
        parameters=declared.parameters.model_construct(**own),
        declaration=declared,
        switch=switch if switch and not getattr(integration, switch.rpartition(".")[2]) else None,
    )

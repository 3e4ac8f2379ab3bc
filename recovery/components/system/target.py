"""One host as the policy describes it: what is watched on it, and from when on it is unwell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from recovery.components.system.named import NamedProcess
from recovery.strategy import Parameters, StrictModel, TargetModel

DEFAULT = "default"
GAP_PERCENT = 5.0
"""How far below the unhealthy value the healthy one lies where the policy names only the first."""

Facet = Literal["disk", "memory", "descriptors", "processes"]
Percent = Field(gt=0, le=100)


class Band(StrictModel):
    """Unwell from ``unhealthy`` percent on, and until it is below ``healthy`` percent again.

    Two values, so that a repair that ends a hair below the first does not count as one.
    """

    unhealthy: float = Percent
    healthy: float = Percent

    @model_validator(mode="after")
    def _is_a_band(self) -> Self:
        if self.healthy > self.unhealthy:
            raise ValueError("healthy must not be above unhealthy")
        return self

    @classmethod
    def below(cls, unhealthy: float) -> Self:
        return cls(unhealthy=unhealthy, healthy=max(unhealthy - GAP_PERCENT, unhealthy / 2))

    def is_crossed(self, percent: float, *, before: bool) -> bool:
        """Whether a reading is unwell; ``before``: whether the last one was."""
        return percent >= (self.healthy if before else self.unhealthy)


class DiskThresholds(StrictModel):
    disk_usage_percent: float = Field(default=85, gt=0, le=100)


class MemoryThresholds(StrictModel):
    memory_usage_percent: float = Field(default=90, gt=0, le=100)


class HostThresholds(StrictModel):
    """When a host counts as unwell.

    ``disk_usage_percent`` and ``memory_usage_percent`` are those of ``disk_cleanup`` and
    ``memory_gc`` where the target names none of its own.
    """

    disk_usage_percent: Band | None = None
    disk_full_percent: float = Field(default=98, gt=0, le=100)
    inode_usage_percent: Band = Band(unhealthy=90, healthy=85)
    memory_usage_percent: Band | None = None
    open_files_percent: Band = Band(unhealthy=90, healthy=80)

    @property
    def disk(self) -> Band:
        return self.disk_usage_percent or Band.below(DiskThresholds().disk_usage_percent)

    @property
    def memory(self) -> Band:
        return self.memory_usage_percent or Band.below(MemoryThresholds().memory_usage_percent)


class HostTarget(TargetModel):
    """One host. Without ``host`` it is the one of the target's own name, ``default`` this one.

    ``watch`` leaves out what another target of the same host is there for, so that a remedy is
    judged by what it can repair. A process without any way to find it is the one that its runtime
    started, where that is a command, and has its key as exact name else.
    """

    selectors: ClassVar[tuple[str, ...]] = ("host",)

    filesystems: tuple[str, ...] = ("/",)
    processes: dict[str, NamedProcess] = Field(default_factory=dict)
    thresholds: HostThresholds = HostThresholds()
    watch: tuple[Facet, ...] = ("disk", "memory", "descriptors", "processes")

    @field_validator("filesystems")
    @classmethod
    def _are_absolute(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        relative = [path for path in paths if not path.startswith("/")]
        if relative:
            raise ValueError(f"must be absolute paths: {', '.join(relative)}")
        return paths

    @field_validator("processes")
    @classmethod
    def _have_a_name(cls, named: dict[str, NamedProcess]) -> dict[str, NamedProcess]:
        return {
            key: process if process.is_found else process.model_copy(update={"name": key})
            for key, process in named.items()
        }

    def completed(
        self,
        name: str,
        here: str,
        strategies: Mapping[str, Parameters],
        integration: Mapping[str, Any],  # noqa: ARG002
    ) -> Self:
        disk = _said(strategies, "disk_cleanup", DiskThresholds()).disk_usage_percent
        memory = _said(strategies, "memory_gc", MemoryThresholds()).memory_usage_percent
        own = self.thresholds
        bands: dict[str, Any] = {
            "disk_usage_percent": own.disk_usage_percent or Band.below(disk),
            "memory_usage_percent": own.memory_usage_percent or Band.below(memory),
        }
        return self.model_copy(
            update={
                "host": self.host or (here if name == DEFAULT else name),
                "thresholds": own.model_copy(update=bands),
            }
        )


def _said(strategies: Mapping[str, Parameters], name: str, default: Any) -> Any:
    """The thresholds that a strategy's block names."""
    return getattr(strategies.get(name), "thresholds", default)

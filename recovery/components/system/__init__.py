"""The hosts: what a policy may say of them. Their probe and remedies are not in this release."""

from __future__ import annotations

from pydantic import Field

from recovery.strategy import (
    Component,
    FailureType,
    Parameters,
    Strategy,
    StrictModel,
    TargetModel,
)


class HostTarget(TargetModel):
    """One host."""


class DiskThresholds(StrictModel):
    disk_usage_percent: float = Field(default=85, gt=0, le=100)


class MemoryThresholds(StrictModel):
    memory_usage_percent: float = Field(default=90, gt=0, le=100)


class DiskCleanup(Parameters):
    """Where old files may be removed, and how old is old."""

    thresholds: DiskThresholds = DiskThresholds()
    cleanup_paths: tuple[str, ...] = ()
    preserve_days: float = Field(default=1, gt=0)


class MemoryGc(Parameters):
    """When memory counts as short."""

    thresholds: MemoryThresholds = MemoryThresholds()


COMPONENT = Component(
    name="system",
    target=HostTarget,
    failure_types=(
        FailureType(name="disk_full", summary="a filesystem has no room left"),
        FailureType(name="disk_usage_high", summary="a filesystem is nearly full"),
        FailureType(name="inode_exhaustion", summary="a filesystem has no inodes left"),
        FailureType(name="memory_pressure", summary="memory is short"),
        FailureType(name="memory_leak", summary="a process keeps growing"),
        FailureType(name="file_handle_exhaustion", summary="descriptors are used up"),
        FailureType(
            name="open_file_limit_reached",
            summary="a process is at its limit of open files",
            is_a="file_handle_exhaustion",
        ),
        FailureType(name="process_unresponsive", summary="a process does not respond"),
        FailureType(name="worker_hung", summary="a worker does not take tasks"),
    ),
    planned=(
        Strategy(
            component="system",
            name="disk_cleanup",
            summary="Remove old temporary files and compress old logs.",
            parameters=DiskCleanup,
            destructive=True,
            timeout_seconds=10.0,
        ),
        Strategy(
            component="system",
            name="memory_gc",
            summary="Have the host's workers give memory back.",
            parameters=MemoryGc,
        ),
        Strategy(
            component="system",
            name="file_handle_cleanup",
            summary="Close unused descriptors and raise limits.",
        ),
        Strategy(
            component="system",
            name="process_restart",
            summary="Restart a configured process.",
            destructive=True,
            timeout_seconds=15.0,
        ),
    ),
)

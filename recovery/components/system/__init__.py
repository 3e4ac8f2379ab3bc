"""The hosts: a target of each, the ways in which one fails, and its remedies."""

from __future__ import annotations

from recovery.components.system.target import HostTarget
from recovery.strategy import Component, FailureType

COMPONENT = Component(
    name="system",
    target=HostTarget,
    probe="recovery.components.system.probe:probe",
    evidence="recovery.components.system.evidence:evidence",
    strategies=("disk_cleanup", "memory_gc", "file_handle_cleanup", "process_restart"),
    failure_types=(
        FailureType(name="disk_full", summary="a filesystem has no room left"),
        FailureType(name="disk_usage_high", summary="a filesystem is nearly full"),
        # What frees room frees inodes.
        FailureType(
            name="inode_exhaustion", summary="a filesystem has no inodes left", is_a="disk_full"
        ),
        FailureType(
            name="filesystem_unavailable",
            summary="a watched filesystem is missing or does not answer",
            remediable=False,
            needs_person=True,
        ),
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
)

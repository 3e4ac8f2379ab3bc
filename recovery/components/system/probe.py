"""The health check of a host: disk, memory, descriptors and the processes that the policy names.

A function of one reading and of what was found last: see ``remembered``.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from recovery.components.system import filesystems, leaks, memory, processes, responding
from recovery.components.system.named import NamedProcess
from recovery.components.system.remembered import Floors, Remembered, recall, remember
from recovery.components.system.target import Band, HostTarget
from recovery.events import Figure, ProbeReport
from recovery.runtime import daemonize

FILE_TABLE = Path("/proc/sys/fs/file-nr")

# The first of these that is found names the failure; what stops the host itself comes first.
URGENCY = (
    "disk_full",
    "inode_exhaustion",
    "file_handle_exhaustion",
    "memory_pressure",
    "filesystem_unavailable",
    "process_unresponsive",
    "open_file_limit_reached",
    "worker_hung",
    "disk_usage_high",
    "memory_leak",
)


@dataclass(slots=True)
class _Reading:
    """What one look at the host brought to light."""

    target: HostTarget
    before: Remembered
    ends: float
    unwell: set[str] = field(default_factory=set)
    floors: Floors = field(default_factory=dict)
    found: list[tuple[str, str]] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)

    def crosses(self, band: Band, percent: float, what: str) -> bool:
        crossed = band.is_crossed(percent, before=what in self.before.unwell)
        if crossed:
            self.unwell.add(what)
        return crossed

    def left(self) -> float:
        """Seconds for the next question; never nothing, so that each is asked."""
        return max(self.ends - time.monotonic(), 0.05)


def probe(target: HostTarget, timeout: float) -> ProbeReport:
    """Read the host once and judge. ``timeout`` in seconds holds for what may not answer."""
    reading = _Reading(target=target, before=recall(target), ends=time.monotonic() + timeout)
    if "disk" in target.watch:
        _read_filesystems(reading)
    if "memory" in target.watch:
        _read_memory(reading)
    if "descriptors" in target.watch:
        _read_file_table(reading)
    if "processes" in target.watch:
        _read_processes(reading)
    remember(target, Remembered(unwell=frozenset(reading.unwell), floors=reading.floors))
    return _report(reading)


def _report(reading: _Reading) -> ProbeReport:
    found = sorted(reading.found, key=lambda each: URGENCY.index(each[0]))
    if len(found) > 1:
        reading.figures["also"] = ", ".join(sorted({kind for kind, _ in found[1:]}))
    return ProbeReport(
        healthy=not found,
        failure_type=found[0][0] if found else None,
        summary="; ".join(text for _, text in found)[:300] or _well(reading.figures),
        figures=reading.figures,
    )


def _well(figures: dict[str, Figure]) -> str:
    shown = {"disk": "disk_percent", "memory": "memory_percent"}
    return ", ".join(f"{what} {figures[key]} %" for what, key in shown.items() if key in figures)


def _read_filesystems(reading: _Reading) -> None:
    limits = reading.target.thresholds
    for path in reading.target.filesystems:
        try:
            usage = filesystems.read(path, reading.left() / 2)
        except filesystems.Unreadable as error:
            reading.found.append(("filesystem_unavailable", str(error)))
            continue
        percent, inodes = usage.percent, usage.inode_percent
        _worst(reading.figures, "disk", percent, path)
        _worst(reading.figures, "inode", inodes, path)
        if reading.crosses(limits.disk, percent, f"disk {path}"):
            full = percent >= limits.disk_full_percent
            kind = "disk_full" if full else "disk_usage_high"
            reading.found.append((kind, f"{path} is {percent:.1f} % full"))
        if reading.crosses(limits.inode_usage_percent, inodes, f"inodes {path}"):
            text = f"{path} has {inodes:.1f} % of its inodes in use"
            reading.found.append(("inode_exhaustion", text))


def _worst(figures: dict[str, Figure], what: str, percent: float, path: str) -> None:
    name = f"{what}_percent"
    if percent >= float(figures.get(name) or 0):
        figures |= {name: round(percent, 1), f"{what}_path": path}


def _read_memory(reading: _Reading) -> None:
    now = memory.read()
    one_minute = os.getloadavg()[0]
    reading.figures |= {
        "memory_percent": round(now.percent, 1),
        "memory_used_mb": now.used // 10**6,
        "memory_limit_mb": now.limit // 10**6,
        "swap_percent": round(now.swap_percent, 1),
        "load_per_cpu": round(one_minute / (os.cpu_count() or 1), 2),
    }
    if reading.crosses(reading.target.thresholds.memory, now.percent, "memory"):
        reading.found.append(("memory_pressure", f"memory is {now.percent:.1f} % used"))


def _read_file_table(reading: _Reading) -> None:
    allocated, _, most = (int(part) for part in FILE_TABLE.read_text().split())
    percent = 100 * allocated / most
    reading.figures |= {"files_open": allocated, "files_percent": round(percent, 1)}
    if reading.crosses(reading.target.thresholds.open_files_percent, percent, "files"):
        text = f"{allocated} of {most} files of this host are open"
        reading.found.append(("file_handle_exhaustion", text))


def _read_processes(reading: _Reading) -> None:
    named = reading.target.processes
    for (key, process), running in zip(named.items(), processes.find(named.values()), strict=True):
        reading.figures[f"{key}_processes"] = len(running)
        limit = partial(_share, reading)
        reading.found += responding.complaints(key, process, running, limit)
        for one in running:
            _read_process(reading, key, process, one)


def _share(reading: _Reading) -> float:
    return reading.left() / 2


def _read_process(
    reading: _Reading, key: str, named: NamedProcess, process: psutil.Process
) -> None:
    who = f"{key} ({process.pid})"
    held = processes.open_files(process)
    if held is not None and held[1] > 0:
        percent = 100 * held[0] / held[1]
        _worst(reading.figures, "process_files", percent, who)
        band = reading.target.thresholds.open_files_percent
        if reading.crosses(band, percent, f"files {key} {process.pid}"):
            text = f"{who} has {held[0]} of {held[1]} descriptors open"
            reading.found.append(("open_file_limit_reached", text))
    _read_resident(reading, key, named, process)


def _read_resident(
    reading: _Reading, key: str, named: NamedProcess, process: psutil.Process
) -> None:
    try:
        size = process.memory_info().rss
    except (psutil.AccessDenied, *processes.GONE):
        return
    who = f"{key} ({process.pid})"
    if named.max_rss_mb is not None and size > named.max_rss_mb * 1e6:
        text = f"{who} holds {size / 1e6:.0f} MB of its {named.max_rss_mb:g}"
        reading.found.append(("memory_pressure", text))
    life = f"{key} {daemonize.identity(process.pid)}"
    # Since boot, so that a clock that is set neither makes nor hides a leak.
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    floors = leaks.with_reading(reading.before.floors.get(life, ()), now, size, named.leak_window)
    reading.floors[life] = floors
    grown = leaks.growth(floors, named.leak_growth_percent)
    if grown:
        text = f"{who} grew by {grown / 1e6:.0f} MB to {size / 1e6:.0f} MB"
        reading.found.append(("memory_leak", text))

"""``system.disk_cleanup``: remove what is old below disposable folders, until there is room."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

from pydantic import Field, field_validator

from recovery import places
from recovery.components.system import deleted, forbidden, old_logs
from recovery.components.system.deleted import Ghost
from recovery.components.system.filesystems import ANSWER_SECONDS, Unreadable, Usage, read
from recovery.components.system.folders import Root, Unsafe, opened, shown
from recovery.components.system.manifest import Manifest
from recovery.components.system.survey import Age, Measure, Shortage, survey
from recovery.components.system.sweep import Freed, Sweep
from recovery.components.system.target import DiskThresholds, HostTarget
from recovery.errors import NothingFreed
from recovery.events import Figure
from recovery.strategy import Journal, Parameters, strategy

DAY = 86_400.0
MOST_NAMED = 10
"""Files, or holders of deleted ones, that the journal names."""


class DiskCleanup(Parameters):
    """``cleanup_paths`` are disposable: what is older than ``preserve_days`` may go for good.

    Old logs in ``log_paths`` are compressed, never removed. ``truncate_deleted`` takes the content
    of files that were deleted in these folders and are still open. ``thresholds`` holds for every
    target that names none of its own.
    """

    thresholds: DiskThresholds = DiskThresholds()
    cleanup_paths: tuple[str, ...] = ()
    log_paths: tuple[str, ...] = ()
    preserve_days: float = Field(default=1, gt=0)
    truncate_deleted: bool = False

    @field_validator("cleanup_paths", "log_paths")
    @classmethod
    def _are_disposable(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [f"{path} {problem}" for path in paths if (problem := forbidden.problem(path))]
        if wrong:
            raise ValueError("; ".join(wrong))
        return paths


@strategy(
    component="system",
    summary="Remove old files below disposable folders and compress old logs.",
    parameters=DiskCleanup,
    destructive=True,
    timeout_seconds=10.0,
)
def disk_cleanup(target: HostTarget, parameters: DiskCleanup, journal: Journal) -> None:
    """Raises ``NothingFreed`` where a filesystem stays short and nothing could go.

    Only a folder whose own filesystem is short is touched. What is removed is named in the
    recovery's folder and cannot be brought back.
    """
    with ExitStack() as stack:
        cleanup = _Cleanup(target, parameters, journal, stack)
        if journal.dry_run:
            cleanup.rehearse()
        else:
            cleanup.run()


class _Cleanup:
    """One run over the folders of the policy, which stay open as long."""

    def __init__(
        self, target: HostTarget, parameters: DiskCleanup, journal: Journal, stack: ExitStack
    ) -> None:
        self.limits = target.thresholds
        self.parameters = parameters
        self.journal = journal
        self.age = Age(seconds=parameters.preserve_days * DAY)
        self.roots = self._opened(stack, parameters.cleanup_paths)
        self.logs = self._opened(stack, parameters.log_paths)
        self.manifest = Manifest(journal.keep)
        self.freed = Freed()

    def run(self) -> None:
        if not self._short():
            self.journal.note("no folder of the policy lies on a filesystem that is short of room")
            return
        try:
            for roots in _by_device(self.roots):
                self._remove_below(roots)
        finally:
            self._close_manifest()
        for root in self.logs:
            self._compress_below(root)
        ghosts = self._empty_deleted()
        if self._short() and not (self.freed.files or self.freed.bytes):
            young = sum(root.young for root in self.roots)
            but = f"; {young} files are younger than preserve_days" if young else ""
            raise NothingFreed(
                f"nothing old and unused is left below {_paths(self._short())}{but}{_blame(ghosts)}"
            )

    def rehearse(self) -> None:
        """Say what could go, and which of it first, whether or not room is short now."""
        for root in self.roots:
            ends = time.monotonic() + self.journal.remaining() / 2
            found = survey([root], Measure(age=self.age), ends, self.journal.remaining)
            figures = {"files": found.files, "mb": _mb(found.gain), "too_young": root.young}
            seen = "" if found.is_whole else ", as far as it was looked at"
            self._plan(f"remove old files below {root.path}{seen}", **figures)
            for best in found.in_order()[:MOST_NAMED]:
                path = shown(root.path, *best.where, best.seen.name)
                self._plan(f"remove {path}", mb=_mb(best.gain))
        for root in self.logs:
            self._plan(f"compress old logs below {root.path}")
        self._name(self._deleted())

    def _remove_below(self, roots: list[Root]) -> None:
        sweep = Sweep(
            roots=roots,
            limits=self.limits,
            age=self.age,
            manifest=self.manifest,
            remaining=self.journal.remaining,
        )
        shortage = sweep.shortage()
        if not shortage:
            return
        try:
            self.journal.change(
                "removed the largest and oldest",
                sweep.run,
                missing_mb=_mb(shortage.bytes),
                missing_inodes=shortage.inodes,
            )
        finally:
            for root, freed in zip(roots, sweep.freed, strict=True):
                self.freed += freed
                self._report(root, files=freed.files, freed_mb=_mb(freed.bytes))

    def _compress_below(self, root: Root) -> None:
        if not self._is_short(root):
            return
        compressing = old_logs.compress_below(
            root, self.age, lambda: self._is_short(root), self.journal.remaining
        )
        files = freed = 0
        try:
            for path, gained in compressing:
                self.journal.note(f"compressed {shown(path)}", freed_mb=_mb(gained))
                files, freed = files + 1, freed + gained
        finally:
            self.freed += Freed(bytes=freed)
            self._report(root, compressed=files, freed_mb=_mb(freed))

    def _empty_deleted(self) -> list[Ghost]:
        """Name who holds deleted files, and take their content where the policy says so."""
        if not self._short():
            return []
        ghosts = self._deleted()
        if self.parameters.truncate_deleted:
            named = [root.path for root in (*self.roots, *self.logs)]
            ours = [ghost for ghost in ghosts if ghost.is_below(named)]
            emptying = deleted.empty(ours, lambda: bool(self._short()), self.journal.remaining)
            for ghost in emptying:
                self.journal.note(f"emptied deleted {shown(ghost.path)}", **_holder(ghost))
                self.freed += Freed(bytes=ghost.bytes)
                ghosts.remove(ghost)
        self._name(ghosts)
        return ghosts

    def _deleted(self) -> list[Ghost]:
        devices = {root.device for root in (*self.roots, *self.logs)}
        return deleted.find(devices, self.journal.remaining)

    def _name(self, ghosts: Sequence[Ghost]) -> None:
        for ghost in ghosts[:MOST_NAMED]:
            self.journal.note(f"deleted and still open: {shown(ghost.path)}", **_holder(ghost))

    def _opened(self, stack: ExitStack, paths: Sequence[str]) -> list[Root]:
        found = []
        for path in paths:
            try:
                # A dead server would hold up whoever opens a folder of it, for ever.
                read(path, min(ANSWER_SECONDS, self.journal.remaining()))
                found.append(stack.enter_context(opened(path, spared=[places.state_dir()])))
            except Unsafe as reason:
                self.journal.note(f"left alone: {path} {reason}")
            except Unreadable as reason:
                self.journal.note(f"left alone: {reason}")
        return found

    def _short(self) -> list[Root]:
        return [root for root in (*self.roots, *self.logs) if self._is_short(root)]

    def _is_short(self, root: Root) -> bool:
        return bool(Shortage.of(Usage.of(root.descriptor), self.limits))

    def _report(self, root: Root, **figures: Figure) -> None:
        reasons = {**root.skipped, "too young": root.young} if root.young else root.skipped
        left = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        self.journal.note(f"done below {root.path}", **figures, left_alone=left or None)

    def _close_manifest(self) -> None:
        if not (self.freed.files or self.manifest.is_begun):
            return
        earlier = ", and of those that a run before this one removed"
        more = earlier if self.manifest.is_resumed else ""
        summary = f"the names of {self.freed.files} removed files{more}; nothing to bring back"
        facts = {"files": self.freed.files, "bytes": self.freed.bytes}
        if not self.manifest.close(summary, **facts):
            self.journal.note("no room for the whole list of what was removed")

    def _plan(self, text: str, **figures: Figure) -> None:
        self.journal.change(text, lambda: None, **figures)


def _by_device(roots: Sequence[Root]) -> list[list[Root]]:
    found: dict[int, list[Root]] = {}
    for root in roots:
        found.setdefault(root.device, []).append(root)
    return list(found.values())


def _holder(ghost: Ghost) -> dict[str, Figure]:
    held = ghost.held
    return {"pid": held.pid, "process": shown(held.process), "mb": _mb(ghost.bytes)}


def _blame(ghosts: Sequence[Ghost]) -> str:
    if not ghosts:
        return ""
    worst = ghosts[0].held
    total = _mb(sum(ghost.bytes for ghost in ghosts))
    return f"; deleted files still hold {total} MB, first of all {worst.process} ({worst.pid})"


def _paths(roots: Sequence[Root]) -> str:
    return ", ".join(root.path for root in roots)


def _mb(count: int) -> float:
    return round(count / 1e6, 3)

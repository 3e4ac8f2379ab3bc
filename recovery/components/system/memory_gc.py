"""``system.memory_gc``: have this host's workers give memory back, and name who holds most."""

from __future__ import annotations

from pydantic import Field

from recovery import places
from recovery.components.system import memory, processes
from recovery.components.system.collecting import Collected, ask, collect_here
from recovery.components.system.folders import shown
from recovery.components.system.target import HostTarget, MemoryThresholds
from recovery.errors import NothingFreed
from recovery.strategy import Journal, Parameters, strategy

LEAST_BYTES = 1024 * 1024
"""Less than that comes and goes by itself, and is not something that was freed."""

MOST_NAMED = 5


class MemoryGc(Parameters):
    """``thresholds`` holds for every target that names none of its own.

    ``recycle_above_mb``: a pool process of any worker that has ever held more is replaced by a new
    one as soon as its task has ended, by Celery itself; without it none is.
    """

    thresholds: MemoryThresholds = MemoryThresholds()
    recycle_above_mb: float | None = Field(default=None, ge=32)


@strategy(
    component="system",
    summary="Have the host's worker processes give memory back, and name who holds most.",
    parameters=MemoryGc,
)
def memory_gc(target: HostTarget, parameters: MemoryGc, journal: Journal) -> None:  # noqa: ARG001
    """Raises ``NothingFreed`` where no process had anything to give back."""
    before = memory.read()
    journal.note(
        "memory before",
        percent=round(before.percent, 1),
        used_mb=before.used // 10**6,
        limit_mb=before.limit // 10**6,
    )
    collected = journal.change(
        "garbage collected in every worker process of this host",
        lambda: [collect_here(), *ask(places.state_dir(), journal.remaining)],
    )
    holders = _name_holders(journal)
    if collected is None:
        return
    freed = _report(journal, parameters, collected)
    if freed < LEAST_BYTES:
        raise NothingFreed(
            f"{len(collected)} worker processes had nothing to give back; most is held by"
            f" {', '.join(holders)}",
            {"holders": holders},
        )


def _report(journal: Journal, parameters: MemoryGc, collected: list[Collected]) -> int:
    most = parameters.recycle_above_mb
    for each in collected:
        if most is not None and each.after > most * 1e6:
            journal.note(f"process {each.pid} is replaced after its task", mb=each.after // 10**6)
        if each.freed >= LEAST_BYTES:
            journal.note(
                f"process {each.pid} gave memory back",
                before_mb=round(each.before / 1e6, 1),
                after_mb=round(each.after / 1e6, 1),
            )
    freed = sum(each.freed for each in collected)
    journal.note(
        "memory after",
        percent=round(memory.read().percent, 1),
        freed_mb=round(freed / 1e6, 1),
        processes=len(collected),
        silent=sum(not each.answered for each in collected),
    )
    return freed


def _name_holders(journal: Journal) -> list[str]:
    holders = [
        f"{shown(name)} ({pid}) {size // 10**6} MB"
        for name, pid, size in processes.holders(MOST_NAMED)
    ]
    journal.note(
        "who holds most memory",
        **{f"no_{place}": text for place, text in enumerate(holders, start=1)},
    )
    return holders

"""Two vantage points before harm: what a destructive remedy needs to see beside the event.

Judges; looks at nothing and does nothing by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recovery.errors import NotConfirmed
from recovery.events import ALL_ELSE_FAILED, ProbeReport, Source
from recovery.finding import find_component

if TYPE_CHECKING:
    from recovery.config import StrategyPolicy
    from recovery.records import Recovery

PAUSE_SECONDS = 0.5
"""Between two looks of one process, where scheduled probes have not found the failure, too."""


def is_wanted(record: Recovery, strategy: StrategyPolicy) -> bool:
    """Whether a failure has to be seen twice: not where a person has looked, nor where the remedy
    judges each thing that it changes."""
    declared, event = strategy.declaration, record.event
    seen_by_a_person = event.source is Source.CLI or event.force or record.decision is not None
    can_harm = declared.destructive and not declared.judges_itself
    return can_harm and not record.dry_run and not seen_by_a_person


def contradiction(
    record: Recovery, strategy: StrategyPolicy, found: ProbeReport
) -> NotConfirmed | None:
    """Why what the probe finds is no reason for this remedy, where the event's failure was one."""
    if record.event.strategy is not None:
        return None
    name = found.failure_type or ""
    declared = find_component(record.target.component).failure_type(name)
    reasons = {name, declared.is_a if declared else None, ALL_ELSE_FAILED}
    if reasons & set(strategy.conditions):
        return None
    return NotConfirmed(f"the event says {record.event.failure_type}, the probe finds {name}")

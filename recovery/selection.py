"""Which strategy answers a failure: a pure function of policy, failure type and recent outcomes.

The ladder of a failure type is every strategy whose conditions name it (or the wider type that it
is), in the policy's order, and last the strategies for ``all_else_failed``. A rung that failed, or
whose success did not last, makes the next one due.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from recovery.events import ALL_ELSE_FAILED, PastOutcome, Result

if TYPE_CHECKING:
    from recovery.config import StrategyPolicy
    from recovery.strategy import FailureType

LADDER_MEMORY_SECONDS = 3600.0


def ladder(
    strategies: Iterable[StrategyPolicy], failure: FailureType
) -> tuple[StrategyPolicy, ...]:
    """The strategies for a failure type in the order in which they are tried.

    A strategy that cannot run as it is configured is no rung: a ladder must not end in a hole.
    """
    if not failure.remediable:
        return ()
    usable = [strategy for strategy in strategies if strategy.obstacle is None]
    names = {failure.name, failure.is_a} - {None}
    first = [strategy for strategy in usable if names & set(strategy.conditions)]
    last = [
        strategy
        for strategy in usable
        if ALL_ELSE_FAILED in strategy.conditions and strategy not in first
    ]
    return (*first, *last)


def select(
    rungs: Sequence[StrategyPolicy],
    failure_type: str,
    past: Iterable[PastOutcome],
    *,
    now_ms: int,
    effective_seconds: float,
) -> StrategyPolicy:
    """The rung of a ladder, which must not be empty, that is due; the last where all are spent.

    ``past``: the target's outcomes, newest first. ``effective_seconds``: how long a success must
    have lasted to count as one.
    """
    spent = _spent(past, failure_type, now_ms, effective_seconds)
    return next((rung for rung in rungs if rung.name not in spent), rungs[-1])


def _spent(
    past: Iterable[PastOutcome], failure_type: str, now_ms: int, effective_seconds: float
) -> set[str]:
    """Strategies that failed, or whose success was followed too soon by the same failure."""
    spent: set[str] = set()
    followed_at = now_ms
    for outcome in past:
        if now_ms - outcome.at_ms > LADDER_MEMORY_SECONDS * 1000:
            break
        if outcome.result is Result.REROUTED:
            # It left the failure where it was, on purpose: the same one says nothing against it.
            continue
        if outcome.result is Result.FAILED:
            spent.add(outcome.strategy)
        elif outcome.failure_type == failure_type:
            if followed_at - outcome.at_ms > effective_seconds * 1000:
                break
            spent.add(outcome.strategy)
        followed_at = outcome.at_ms
    return spent

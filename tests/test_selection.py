"""The ladder: which strategy is due after what happened before."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from recovery.events import ALL_ELSE_FAILED, PastOutcome, Result
from recovery.selection import ladder, select
from recovery.strategy import FailureType, Strategy

NOW = 10_000_000
MINUTE = 60_000


def remedy(*_: object) -> None:
    """Stands for a remedy that exists; selection never calls it."""


@dataclass(frozen=True)
class Configured:
    name: str
    conditions: tuple[str, ...]
    declaration: Strategy = field(
        default_factory=lambda: Strategy(component="redis", name="x", summary="", remedy=remedy)
    )

    @property
    def obstacle(self) -> str | None:
        return None if self.declaration.is_available else "not in this release"


RECONNECT = Configured("reconnect", ("connection_error",))
FLUSH = Configured("flush", ("connection_error", "memory_pressure"))
RESTART = Configured("restart", (ALL_ELSE_FAILED,))
UNAVAILABLE = Configured(
    "later", ("connection_error",), Strategy(component="redis", name="later", summary="")
)
ALL = (RECONNECT, FLUSH, RESTART)
REFUSED = FailureType(name="connection_error", summary="")


def past(strategy: str, result: Result, minutes_ago: float, failure: str = "connection_error"):
    at = int(NOW - minutes_ago * MINUTE)
    return PastOutcome(strategy=strategy, failure_type=failure, result=result, at_ms=at)


def due(*outcomes: PastOutcome, effective_seconds: float = 300) -> str:
    rungs = ladder(ALL, REFUSED)
    return select(
        rungs, "connection_error", outcomes, now_ms=NOW, effective_seconds=effective_seconds
    ).name


def test_the_ladder_follows_the_policys_order_and_ends_with_all_else_failed() -> None:
    assert [rung.name for rung in ladder(ALL, REFUSED)] == ["reconnect", "flush", "restart"]


def test_a_narrow_failure_type_is_served_by_the_remedies_of_the_wider_one() -> None:
    exhausted = FailureType(name="clients_exhausted", summary="", is_a="connection_error")

    assert [rung.name for rung in ladder(ALL, exhausted)] == ["reconnect", "flush", "restart"]


def test_a_strategy_that_cannot_run_is_no_rung() -> None:
    assert [rung.name for rung in ladder((UNAVAILABLE, RECONNECT), REFUSED)] == ["reconnect"]


def test_a_failure_that_nothing_should_touch_has_no_ladder() -> None:
    assert ladder(ALL, FailureType(name="loading", summary="", remediable=False)) == ()


def test_the_first_rung_is_due_at_first() -> None:
    assert due() == "reconnect"


def test_a_failed_rung_makes_the_next_one_due() -> None:
    assert due(past("reconnect", Result.FAILED, 6)) == "flush"


def test_when_every_rung_failed_the_last_stays_due() -> None:
    failed = [past(name, Result.FAILED, 5 * n) for n, name in enumerate(("restart", "flush"), 1)]

    assert due(*failed, past("reconnect", Result.FAILED, 20)) == "restart"


def test_a_success_that_did_not_last_counts_as_failed() -> None:
    assert due(past("reconnect", Result.RECOVERED, 2)) == "flush"


def test_a_success_that_lasted_starts_the_ladder_anew() -> None:
    assert due(past("reconnect", Result.RECOVERED, 30)) == "reconnect"


def test_a_success_that_did_not_last_stays_spent_while_later_rungs_fail() -> None:
    outcomes = (past("flush", Result.FAILED, 6), past("reconnect", Result.RECOVERED, 7))

    assert due(*outcomes) == "restart"


def test_failures_of_more_than_an_hour_ago_are_forgotten() -> None:
    assert due(past("reconnect", Result.FAILED, 61)) == "reconnect"


def test_a_failure_of_another_type_spends_the_rung_all_the_same() -> None:
    assert due(past("reconnect", Result.FAILED, 6, failure="high_latency")) == "flush"


OUTCOMES = st.lists(
    st.builds(
        PastOutcome,
        strategy=st.sampled_from(["reconnect", "flush", "restart"]),
        failure_type=st.sampled_from(["connection_error", "high_latency"]),
        result=st.sampled_from([Result.RECOVERED, Result.FAILED]),
        at_ms=st.integers(NOW - 120 * MINUTE, NOW),
    ),
    max_size=12,
).map(lambda found: sorted(found, key=lambda outcome: -outcome.at_ms))


@given(OUTCOMES)
def test_some_rung_is_always_due_and_a_recent_failure_is_never_repeated_below_the_top(
    outcomes: list[PastOutcome],
) -> None:
    chosen = due(*outcomes)

    assert chosen in {rung.name for rung in ALL}
    if chosen != "restart" and outcomes and outcomes[0].result is Result.FAILED:
        recent = NOW - outcomes[0].at_ms <= 60 * MINUTE
        assert not (recent and outcomes[0].strategy == chosen)

"""What alerts mean, by the rules of the policy."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from recovery.alertmanager.mapping import Meaning, meaning
from recovery.config.alerting import AlertRule

LATENCY = AlertRule(
    match={"alertname": "RedisSlow|RedisLagging"}, component="redis", failure_type="high_latency"
)
EVERY_REDIS = AlertRule(
    match={"job": "redis"}, component="redis", target="{pool}", failure_type="connection_error"
)


def test_the_labels_of_our_own_rules_need_no_rule_in_the_policy() -> None:
    labels = {"component": "chromadb", "target": "main", "failure_type": "index_corrupted"}

    assert meaning(labels, ()) == Meaning(
        component="chromadb", target="main", failure_type="index_corrupted"
    )


def test_the_first_rule_that_fits_says_what_an_alert_means() -> None:
    labels = {"alertname": "RedisSlow", "job": "redis", "pool": "cache"}

    assert meaning(labels, (LATENCY, EVERY_REDIS)) == Meaning(
        component="redis", target=None, failure_type="high_latency"
    )


def test_a_pattern_has_to_fit_as_a_whole() -> None:
    assert meaning({"alertname": "NotRedisSlow"}, (LATENCY,)) is None


def test_a_rule_takes_labels_for_its_words() -> None:
    found = meaning({"job": "redis", "pool": "cache"}, (EVERY_REDIS,))

    assert found is not None
    assert found.target == "cache"


@pytest.mark.parametrize("missing", ["component", "failure_type"])
def test_without_its_labels_a_rule_does_not_fit(missing: str) -> None:
    labels = {"component": "redis", "failure_type": "connection_error", missing: ""}

    assert meaning(labels, ()) is None


def test_without_a_target_the_component_decides() -> None:
    found = meaning({"component": "redis", "failure_type": "connection_error"}, ())

    assert found is not None
    assert found.target is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"component": "rediss", "failure_type": "connection_error"},
        {"component": "redis", "failure_type": "disk_full"},
        {"component": "redis", "failure_type": "high_latency", "match": {"job": "("}},
    ],
)
def test_a_rule_that_could_never_work_is_refused_with_the_policy(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AlertRule.model_validate(wrong)

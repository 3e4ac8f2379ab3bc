"""What a person switches off is what they named, and nothing wider."""

from __future__ import annotations

from pathlib import Path

import pytest

from recovery import disabling
from recovery.config import Policy, load_policy
from recovery.errors import InvalidEvent
from tests.policies import write_policy


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    return load_policy(write_policy(tmp_path, {"cache": {"url": "redis://127.0.0.1:1/0"}}))


@pytest.mark.parametrize(
    ("component", "target", "scope"),
    [
        (None, None, "all"),
        ("redis", None, "redis"),
        ("redis", "cache", "redis/cache"),
        ("redis", "redis/cache", "redis/cache"),
        (None, "redis/cache", "redis/cache"),
    ],
)
def test_a_scope_is_what_was_named(
    policy: Policy, component: str | None, target: str | None, scope: str
) -> None:
    assert disabling.scope_of(policy, component, target) == scope


@pytest.mark.parametrize(
    ("component", "target"),
    [(None, "cache"), (None, "redis/nope"), ("chromadb", "redis/cache"), ("nope", None)],
)
def test_a_target_that_is_not_found_never_becomes_everything(
    policy: Policy, component: str | None, target: str | None
) -> None:
    with pytest.raises(InvalidEvent):
        disabling.scope_of(policy, component, target)

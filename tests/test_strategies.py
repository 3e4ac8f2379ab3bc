"""The contract of every strategy, whoever wrote it: what all the rest takes for granted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from recovery.config import StrategyPolicy, load_policy
from recovery.errors import RemedyError
from recovery.events import TargetRef
from recovery.finding import find_component, find_discard, find_strategy, find_undo, strategy_names
from recovery.strategy import COMPONENTS, Strategy
from tests.journals import MemoryJournal
from tests.servers import free_port

SECRET = "tell-nobody"

STRATEGIES = [
    find_strategy(component, name) for component in COMPONENTS for name in strategy_names(component)
]

NOTHING_TO_BRING_BACK = {
    # docs/decisions/0008: to keep what a full disk must lose would need the room that it lacks.
    "system.disk_cleanup",
    # A process that was replaced has left nothing behind that could be put back.
    "system.process_restart",
}


def every(strategies: list[Strategy]) -> Any:
    return pytest.mark.parametrize("declared", strategies, ids=lambda found: found.full_name)


@every(STRATEGIES)
def test_it_says_what_it_does_and_can_do_it(declared: Strategy) -> None:
    assert declared.remedy is not None
    assert declared.remedy.__doc__
    assert declared.summary.endswith(".")
    assert declared.summary[0].isupper()


@every(STRATEGIES)
def test_what_it_takes_is_checked_and_unknown_keys_are_refused(declared: Strategy) -> None:
    for model in (declared.parameters, declared.scope):
        assert model.model_config["extra"] == "forbid"
        assert model.model_config["frozen"]


@every(STRATEGIES)
def test_a_probe_has_time_within_it(declared: Strategy) -> None:
    assert find_component(declared.component).probe_seconds <= declared.timeout_seconds


@every([declared for declared in STRATEGIES if declared.destructive])
def test_what_it_destroys_can_be_brought_back(declared: Strategy) -> None:
    if declared.full_name in NOTHING_TO_BRING_BACK:
        assert declared.undo is None
        return
    assert find_undo(declared.component, declared.name) is not None
    assert not declared.safe_alone


@every([declared for declared in STRATEGIES if declared.discard])
def test_what_it_keeps_elsewhere_is_given_up_in_the_end(declared: Strategy) -> None:
    assert find_discard(declared.component, declared.name) is not None


@every([declared for declared in STRATEGIES if declared.component != "system"])
@pytest.mark.parametrize("dry_run", [True, False], ids=["rehearsed", "run"])
def test_on_a_target_that_is_gone_it_ends_in_time_with_a_named_error_and_no_secret(
    declared: Strategy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, dry_run: bool
) -> None:
    monkeypatch.setenv("RECOVERY_SECRET", SECRET)
    configured, target = gone(declared, tmp_path)
    journal = MemoryJournal(tmp_path, seconds=declared.timeout_seconds, dry_run=dry_run)

    said = ""
    try:
        assert declared.remedy is not None
        declared.remedy(target, configured.parameters, journal)
    except RemedyError as error:
        said = f"{error!r} {error.__cause__!r}"
    else:
        # What cannot be known without acting may only be foregone in a rehearsal.
        assert dry_run

    assert journal.deadline.left() > 0
    assert SECRET not in said + repr(journal.steps)
    assert list(tmp_path.rglob("*.sqlite3")) == []


def gone(declared: Strategy, folder: Path) -> tuple[StrategyPolicy, Any]:
    """A target of its component where nothing is, and the strategy as a policy configures it."""
    address = f"127.0.0.1:{free_port()}"
    targets: dict[str, dict[str, Any]] = {
        "redis": {"url": f"redis://{address}/0", "password": "${RECOVERY_SECRET}"},
        "chromadb": {"url": f"http://{address}", "token": "${RECOVERY_SECRET}"},
        "openwebui": {
            "base_url": f"http://{address}",
            "email": "admin@example.com",
            "password": "${RECOVERY_SECRET}",
            "model": "llama-3",
        },
    }
    needed: dict[str, dict[str, Any]] = {
        "redis.flush_corrupted": {"key_patterns": [{"pattern": "cache:*", "no_ttl": True}]},
    }
    block = {"name": declared.name, **needed.get(declared.full_name, {})}
    section = {"targets": {"default": targets[declared.component]}, "strategies": [block]}
    file = folder / "recovery_config.yml"
    file.write_text(yaml.safe_dump({"recovery": {declared.component: section}}))
    policy = load_policy(file)
    configured = policy.strategy(declared.component, declared.name)
    return configured, policy.target(TargetRef(declared.component))

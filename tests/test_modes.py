"""The modes that ship, in code and in the policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from recovery.config import load_policy
from recovery.modes import SHIPPED
from recovery.strategy import COMPONENTS

ROOT = Path(__file__).parent.parent


def test_what_applications_assume_is_what_the_shipped_policy_says() -> None:
    shipped = load_policy(ROOT / "recovery_config.yml").degraded_modes

    assert {
        name: (mode.available_capabilities, mode.unavailable_capabilities)
        for name, mode in shipped.items()
    } == {name: tuple(one) for name, one in SHIPPED.items()}


def test_the_playbooks_lists_are_all_in_it() -> None:
    theirs = load_policy(ROOT / "tests/data/playbook_recovery_config.yml").degraded_modes

    for name, mode in theirs.items():
        assert set(mode.unavailable_capabilities) <= set(SHIPPED[name].unavailable)
        assert set(mode.available_capabilities) <= set(SHIPPED[name].available)


@pytest.mark.parametrize("mode", SHIPPED)
def test_each_mode_is_of_a_component_and_has_a_runbook_that_names_its_capabilities(
    mode: str,
) -> None:
    component = mode.removesuffix("_unavailable")
    runbook = ROOT / "docs/runbooks" / f"mode-{mode.replace('_', '-')}.md"
    text = runbook.read_text()

    assert component in COMPONENTS
    assert [one for lists in SHIPPED[mode] for one in lists if f"`{one}`" not in text] == []

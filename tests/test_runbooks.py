"""Whoever is woken finds a page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recovery.alerts import notice_of
from recovery.config import load_policy
from recovery.finding import find_strategy, strategy_names
from recovery.strategy import COMPONENTS
from tests.fleet import ROOT
from tests.policies import make_policy

RUNBOOKS = ROOT / "docs" / "runbooks"
INDEX = RUNBOOKS / "README.md"

AVAILABLE = [
    f"{component}.{name}"
    for component in COMPONENTS
    for name in strategy_names(component)
    if find_strategy(component, name).is_available
]
MODES = sorted(load_policy(ROOT / "recovery_config.yml", {}).degraded_modes)


def page(name: str) -> str:
    prefix = "" if "." in name else "mode-"
    return f"{prefix}{name.replace('.', '-').replace('_', '-')}.md"


@pytest.mark.parametrize("name", [*AVAILABLE, *MODES])
def test_every_remedy_and_every_mode_has_a_page(name: str) -> None:
    assert (RUNBOOKS / page(name)).is_file()


def test_every_page_is_in_the_index_and_every_link_leads_somewhere() -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", INDEX.read_text()))
    pages = {path.name for path in RUNBOOKS.glob("*.md")} - {INDEX.name}

    assert linked == pages


@pytest.mark.parametrize(
    "fact",
    [
        {"kind": "level", "level": 3, "why": "?"},
        {"kind": "approval", "strategy": "restart_container"},
        {"kind": "degraded", "mode": "redis_unavailable"},
        {"kind": "recovery", "strategy": "reconnect", "result": "failed"},
        {"kind": "audit_gap", "target": "audit/host", "why": "?"},
        {"kind": "something_new", "why": "?"},
    ],
    ids=lambda fact: str(fact["kind"]),
)
def test_an_alert_links_to_a_page_that_is_there(fact: dict[str, object], tmp_path: Path) -> None:
    base = "https://example.org/runbooks"
    policy = make_policy(tmp_path, {"default": {}}, sections={"alerting": {"runbook_url": base}})

    notice = notice_of(policy, {"target": "redis/default", **fact})

    assert notice.runbook is not None
    assert (RUNBOOKS / notice.runbook.removeprefix(f"{base}/")).is_file()

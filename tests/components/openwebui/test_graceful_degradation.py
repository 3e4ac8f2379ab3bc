"""The road past Open WebUI, which nobody is sent to in vain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recovery.components.openwebui.direct import prove
from recovery.components.openwebui.graceful_degradation import (
    NOTICE,
    GracefulDegradation,
    graceful_degradation,
)
from recovery.components.openwebui.target import OpenWebuiTarget
from recovery.errors import NotConfigured, RemedyError
from recovery.memory import TargetMemory
from recovery.routing import Provider, Road
from tests.components.openwebui.describing import (
    DIRECT_KEY,
    PRIMARY,
    described,
    direct_to,
    with_token,
)
from tests.journals import MemoryJournal
from tests.openwebui import OpenWebui
from tests.upstreams import KEY, AnthropicUpstream, OpenAiUpstream


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DIRECT_KEY, KEY)


@pytest.fixture
def both(
    openwebui: OpenWebui, memory: TargetMemory, anthropic_upstream: AnthropicUpstream
) -> OpenWebuiTarget:
    """A target with two roads."""
    with_token(openwebui, memory)
    return described(
        openwebui.url, memory, direct=direct_to(anthropic_upstream), completion_timeout="2s"
    )


def lead_around(target: OpenWebuiTarget, *, dry_run: bool = False) -> MemoryJournal:
    journal = MemoryJournal(dry_run=dry_run)
    assert graceful_degradation.remedy is not None
    graceful_degradation.remedy(target, GracefulDegradation(), journal)
    return journal


def test_applications_are_led_to_a_road_that_was_proven(
    both: OpenWebuiTarget,
    memory: TargetMemory,
    openwebui: OpenWebui,
    anthropic_upstream: AnthropicUpstream,
) -> None:
    openwebui.kill()
    before = memory.route()

    journal = lead_around(both)

    route = memory.route()
    assert (route.road, route.direct) == (Road.DIRECT, both.direct.published)
    assert (route.model, route.token) == (PRIMARY, before.token)
    assert route.since >= before.since
    assert journal.notices == [NOTICE]
    assert anthropic_upstream.asked_models == ["claude-test"]
    assert prove(both, 5).healthy


def test_the_key_is_never_in_the_control_plane(
    both: OpenWebuiTarget, memory: TargetMemory, control: Any
) -> None:
    lead_around(both)

    stored = control.redis.hget("recovery:routes", "openwebui/default")
    assert KEY not in stored
    assert DIRECT_KEY in stored


@pytest.mark.parametrize(
    "mode",
    ["429", "500", "503", "529", "401", "hang", "drop", "drip", "malformed", "html", "empty"],
)
def test_nobody_is_led_to_a_road_that_does_not_answer(
    both: OpenWebuiTarget, memory: TargetMemory, anthropic_upstream: AnthropicUpstream, mode: str
) -> None:
    anthropic_upstream.mode = mode
    before = memory.route()

    with pytest.raises(RemedyError):
        lead_around(both)

    assert memory.route() == before
    assert not prove(both, 5).healthy


def test_an_openai_compatible_provider_is_another_road(
    openwebui: OpenWebui, memory: TargetMemory, openai_upstream: OpenAiUpstream
) -> None:
    direct = direct_to(openai_upstream, provider="openai", base_url=f"{openai_upstream.url}/v1")
    target = described(openwebui.url, memory, direct=direct)

    lead_around(target)

    assert memory.route().direct.provider is Provider.OPENAI
    assert prove(target, 5).healthy


def test_a_local_provider_needs_no_key(
    openwebui: OpenWebui, memory: TargetMemory, openai_upstream: OpenAiUpstream
) -> None:
    direct = direct_to(openai_upstream, provider="openai", api_key_env=None)
    found = prove(described(openwebui.url, memory, direct=direct), 5)

    # The test's server wants one: it was asked without.
    assert found.failure_type == "auth_failure"
    assert "refuses the key" in found.summary


def test_the_listing_of_models_proves_it_without_a_completion(
    openwebui: OpenWebui, memory: TargetMemory, anthropic_upstream: AnthropicUpstream
) -> None:
    target = described(openwebui.url, memory, direct=direct_to(anthropic_upstream, test="listing"))

    lead_around(target)
    anthropic_upstream.models = ["another"]
    gone = prove(target, 5)

    assert anthropic_upstream.requests == []
    assert gone.failure_type == "model_unavailable"


def test_headers_and_version_of_the_policy_are_sent(
    openwebui: OpenWebui, memory: TargetMemory, anthropic_upstream: AnthropicUpstream
) -> None:
    said = {"headers": {"X-Team": "blue"}, "anthropic_version": "2024-01-01"}
    lead_around(described(openwebui.url, memory, direct=direct_to(anthropic_upstream, **said)))

    sent = anthropic_upstream.headers[-1]
    assert (sent["x-team"], sent["anthropic-version"]) == ("blue", "2024-01-01")
    assert memory.route().direct.headers == {"X-Team": "blue"}


def test_the_key_may_be_in_a_file(
    openwebui: OpenWebui,
    memory: TargetMemory,
    anthropic_upstream: AnthropicUpstream,
    tmp_path: Path,
) -> None:
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    said = direct_to(anthropic_upstream, api_key_env=None, api_key_file=file)
    target = described(openwebui.url, memory, direct=said)

    lead_around(target)
    file.unlink()

    assert memory.route().direct.api_key_file == str(file)
    assert "cannot be read" in prove(target, 5).summary


def test_a_host_without_the_key_proves_nothing(
    both: OpenWebuiTarget, memory: TargetMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(DIRECT_KEY)

    with pytest.raises(NotConfigured, match=DIRECT_KEY):
        lead_around(both)

    assert memory.route().road is Road.OPENWEBUI


def test_without_another_road_there_is_none_to_lead_to(
    openwebui: OpenWebui, memory: TargetMemory
) -> None:
    target = described(openwebui.url, memory)

    with pytest.raises(NotConfigured) as caught:
        lead_around(target)

    assert caught.value.facts == {"key": "direct"}
    assert not prove(target, 5).healthy


def test_doing_it_twice_changes_nothing_the_second_time(
    both: OpenWebuiTarget, memory: TargetMemory
) -> None:
    lead_around(both)
    first = memory.route()

    lead_around(both)

    assert replace(memory.route(), recovery_id=first.recovery_id) == first


def test_a_rehearsal_asks_and_leads_nobody(
    both: OpenWebuiTarget, memory: TargetMemory, anthropic_upstream: AnthropicUpstream
) -> None:
    before = memory.route()

    journal = lead_around(both, dry_run=True)

    assert memory.route() == before
    assert [step.text for step in journal.steps if step.planned][:1] == [
        "led applications to the direct road"
    ]

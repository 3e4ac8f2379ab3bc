"""Another model, and only one that really answers."""

from __future__ import annotations

import pytest

from recovery.components.openwebui.model_failover import NOTICE, ModelFailover, model_failover
from recovery.components.openwebui.probe import probe
from recovery.components.openwebui.target import OpenWebuiTarget
from recovery.errors import NotConfigured, RemedyError, TargetRefused
from recovery.memory import TargetMemory
from recovery.routing import Road
from tests.components.openwebui.describing import PRIMARY, described, store, with_token
from tests.journals import MemoryJournal
from tests.openwebui import OpenWebui
from tests.upstreams import OpenAiUpstream


@pytest.fixture
def ready(openwebui: OpenWebui, memory: TargetMemory) -> OpenWebuiTarget:
    with_token(openwebui, memory)
    return described(openwebui.url, memory, completion_timeout="2s")


def fail_over(target: OpenWebuiTarget, *fallbacks: str, dry_run: bool = False) -> MemoryJournal:
    journal = MemoryJournal(dry_run=dry_run)
    said = {"fallback_models": fallbacks} if fallbacks else {}
    assert model_failover.remedy is not None
    model_failover.remedy(target, ModelFailover(**said), journal)
    return journal


@pytest.mark.parametrize("mode", ["401", "429", "500", "503", "hang", "drop", "malformed", "empty"])
def test_a_dead_primary_makes_the_first_answering_fallback_the_active_model(
    ready: OpenWebuiTarget, memory: TargetMemory, openai_upstream: OpenAiUpstream, mode: str
) -> None:
    openai_upstream.modes[PRIMARY] = mode
    assert not probe(ready, 10).healthy

    journal = fail_over(ready)

    found = probe(ready, 10)
    assert (found.healthy, found.figures["model"]) == (True, "deepseek-chat"), found.summary
    route = memory.route()
    assert (route.model, route.primary_model, route.road) == (
        "deepseek-chat",
        PRIMARY,
        Road.OPENWEBUI,
    )
    assert journal.notices == [NOTICE]


def test_a_listed_fallback_that_is_dead_is_passed_over(
    ready: OpenWebuiTarget, memory: TargetMemory, openai_upstream: OpenAiUpstream
) -> None:
    openai_upstream.modes.update({PRIMARY: "500", "deepseek-chat": "500"})
    openai_upstream.models.remove("gemini-pro")

    journal = fail_over(ready)

    assert memory.route().model == "gpt-4-turbo"
    assert [(step.text, step.figures["model"]) for step in journal.steps[:4]] == [
        ("does not answer", PRIMARY),
        ("does not answer", "deepseek-chat"),
        ("not listed", "gemini-pro"),
        ("answers", "gpt-4-turbo"),
    ]


def test_the_fallbacks_are_the_policys_in_its_order(
    ready: OpenWebuiTarget, memory: TargetMemory, openai_upstream: OpenAiUpstream
) -> None:
    openai_upstream.models.remove(PRIMARY)

    fail_over(ready, "gpt-4-turbo", "deepseek-chat")

    assert memory.route().model == "gpt-4-turbo"


def test_a_fallback_that_dies_in_its_turn_has_every_model_asked_anew(
    ready: OpenWebuiTarget, memory: TargetMemory, openai_upstream: OpenAiUpstream
) -> None:
    openai_upstream.modes[PRIMARY] = "500"
    fail_over(ready)
    openai_upstream.modes = {"deepseek-chat": "500"}

    fail_over(ready)

    assert memory.route().model == PRIMARY


def test_with_every_model_dead_nothing_is_changed_and_none_is_put_aside(
    ready: OpenWebuiTarget, memory: TargetMemory, openai_upstream: OpenAiUpstream
) -> None:
    openai_upstream.mode = "500"
    before = memory.route()

    with pytest.raises(RemedyError, match="none of llama-3, deepseek-chat"):
        fail_over(ready)
    assert memory.route() == before
    openai_upstream.mode = "answer"
    fail_over(ready)

    assert len(openai_upstream.requests) == 5
    assert memory.route().model == PRIMARY


def test_a_primary_that_answers_by_now_stays(
    ready: OpenWebuiTarget, memory: TargetMemory, openai_upstream: OpenAiUpstream
) -> None:
    before = memory.route()

    journal = fail_over(ready)

    assert memory.route() == before
    assert journal.notices == []


def test_a_refused_token_is_no_dead_model(
    ready: OpenWebuiTarget, memory: TargetMemory, openwebui: OpenWebui
) -> None:
    store(openwebui, memory, "garbage", None)

    with pytest.raises(TargetRefused):
        fail_over(ready)


def test_without_a_test_no_model_can_be_chosen(openwebui: OpenWebui, memory: TargetMemory) -> None:
    with_token(openwebui, memory)

    with pytest.raises(NotConfigured, match="test_completion"):
        fail_over(described(openwebui.url, memory, test_completion="never"))
    with pytest.raises(NotConfigured, match="primary"):
        fail_over(described(openwebui.url, memory, model=None))


def test_a_rehearsal_names_the_model_and_changes_nothing(
    ready: OpenWebuiTarget, memory: TargetMemory, openai_upstream: OpenAiUpstream
) -> None:
    openai_upstream.modes[PRIMARY] = "500"
    before = memory.route()

    journal = fail_over(ready, dry_run=True)

    planned = [step.figures["model"] for step in journal.steps if step.planned]
    assert planned == ["deepseek-chat"]
    assert memory.route() == before

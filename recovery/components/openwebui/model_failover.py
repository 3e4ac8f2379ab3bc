"""``openwebui.model_failover``: make the first model that really answers the active one.

The primary is asked first, and every model each time: none is ever put aside.
"""

from __future__ import annotations

from pydantic import Field

from recovery.components.openwebui.api import OpenWebui
from recovery.components.openwebui.findings import Unanswered
from recovery.components.openwebui.known import known
from recovery.components.openwebui.standing import as_the_policy_says
from recovery.components.openwebui.target import OpenWebuiTarget
from recovery.errors import MemoryAway, NotConfigured, RemedyError, TargetRefused
from recovery.strategy import Journal, Memory, Parameters, strategy

NOTICE = "model_changed"


class ModelFailover(Parameters):
    """Models to fall back to, the most wanted first."""

    fallback_models: tuple[str, ...] = Field(
        default=("deepseek-chat", "gemini-pro", "gpt-4-turbo"), max_length=20
    )


@strategy(
    component="openwebui",
    summary="Make the first model that is listed and answers a test the active one.",
    parameters=ModelFailover,
    timeout_seconds=20.0,
)
def model_failover(target: OpenWebuiTarget, parameters: ModelFailover, journal: Journal) -> None:
    """Raises ``RemedyError`` where no model answers."""
    memory = target.memory
    if memory is None:
        raise MemoryAway("the active model is kept in the control plane, which nobody asked")
    if target.model is None:
        raise NotConfigured("no primary model", {"key": "model"})
    if target.test_completion == "never":
        raise NotConfigured(
            "no model can be proven to answer with test_completion: never",
            {"key": "test_completion"},
        )
    what = known(target, memory)
    if what.problem is not None:
        raise TargetRefused(what.problem.summary)
    token = what.token.text if what.token else None
    try:
        with OpenWebui(target, journal.remaining(), token) as webui:
            found = _first_that_answers(webui, (target.model, *parameters.fallback_models), journal)
    except Unanswered as error:
        raise error.finding.as_error() from None
    if found == what.model:
        journal.note("the active model answers by now", model=found)
        return
    _activate(target, memory, found, journal)


def _first_that_answers(webui: OpenWebui, wanted: tuple[str, ...], journal: Journal) -> str:
    listed = set(webui.models(refresh=True))
    for model in dict.fromkeys(wanted):
        journal.remaining()
        if model not in listed:
            journal.note("not listed", model=model)
            continue
        tested = webui.test(model)
        if tested.finding is None:
            journal.note("answers", model=model, completion_ms=round(tested.seconds * 1000, 1))
            return model
        journal.note("does not answer", model=model, why=tested.finding.summary)
    raise RemedyError(f"none of {', '.join(dict.fromkeys(wanted))} answers; {len(listed)} listed")


def _activate(target: OpenWebuiTarget, memory: Memory, model: str, journal: Journal) -> None:
    facts = {**as_the_policy_says(target, memory.route()), "model": model}
    journal.change(
        "made it the active model",
        lambda: memory.reroute(**facts),
        model=model,
        primary=target.model,
    )
    journal.tell_applications(f"applications were told to use {model}", NOTICE)

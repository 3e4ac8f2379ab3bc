"""The health check of an Open WebUI: what its applications would meet, from the door to a model.

``light`` asks for health, readiness, the token and the list of models; ``probe`` also has the list
renewed and, where the policy wants it, the active model say a word.
"""

from __future__ import annotations

from recovery.components.openwebui.api import OpenWebui
from recovery.components.openwebui.findings import Finding, Unanswered
from recovery.components.openwebui.known import Known, known, seconds_until_refresh
from recovery.components.openwebui.target import OpenWebuiTarget
from recovery.components.openwebui.tokens import Token
from recovery.events import Figure, ProbeReport

Figures = dict[str, Figure]

NOBODY_RENEWS = 0.5
"""The part of ``refresh_before`` that must be left: by then it should have been renewed."""


def probe(target: OpenWebuiTarget, timeout: float) -> ProbeReport:
    """``timeout`` in seconds holds for the whole of it."""
    asks = {"always": True, "never": False}.get(target.test_completion, _is_repair(target))
    return look(target, known(target, target.memory), timeout, refresh=True, asks_model=asks)


def light(target: OpenWebuiTarget, timeout: float) -> ProbeReport:
    """What costs milliseconds and no completion."""
    return look(target, known(target, target.memory), timeout, refresh=False, asks_model=False)


def look(
    target: OpenWebuiTarget, what: Known, timeout: float, *, refresh: bool, asks_model: bool
) -> ProbeReport:
    """The first failure on the way from the door to the model, and the figures until there."""
    figures: Figures = {}
    token = what.token.text if what.token else None
    try:
        with OpenWebui(target, timeout, token) as webui:
            finding = _on_the_way(target, what, webui, figures, refresh, asks_model)
    except Unanswered as error:
        finding = error.finding
    if finding is not None:
        return finding.as_report(figures)
    return ProbeReport(healthy=True, summary=_well(figures), figures=figures)


def _on_the_way(  # noqa: PLR0917 - called in one place
    target: OpenWebuiTarget,
    what: Known,
    webui: OpenWebui,
    figures: Figures,
    refresh: bool,
    asks_model: bool,
) -> Finding | None:
    figures["latency_ms"] = round(webui.health() * 1000, 1)
    webui.readiness()
    if refresh:
        figures["version"] = webui.version()
    if what.problem is not None:
        return what.problem
    if what.token is None:
        figures["token"] = "none" if what.is_remembered else "unknown"
        return _slowness(target, figures)
    if (ended := _age(target, what.token, figures)) is not None:
        return ended
    listed = webui.models(refresh=refresh)
    figures["models"] = len(listed)
    figures["model"] = what.model
    if what.model is not None and what.model not in listed:
        return _not_listed(what.model, len(listed))
    if what.model is not None and asks_model:
        tested = webui.test(what.model)
        figures["completion_ms"] = round(tested.seconds * 1000, 1)
        if tested.finding is not None:
            return tested.finding
    return _slowness(target, figures)


def _age(target: OpenWebuiTarget, token: Token, figures: Figures) -> Finding | None:
    """Whether the token has run out, or is about to and nobody renews it."""
    left, due = token.seconds_left(), seconds_until_refresh(target, token, NOBODY_RENEWS)
    if left is None or due is None:
        return None
    figures["token_seconds"] = round(left)
    if left <= 0:
        return Finding(failure_type="token_expired", summary=f"the token ran out {-left:.0f} s ago")
    if due <= 0:
        return Finding(failure_type="token_expired", summary=f"the token ends in {left:.0f} s")
    return None


def _not_listed(model: str, others: int) -> Finding:
    return Finding(
        failure_type="model_unavailable", summary=f"model {model} is not among {others} listed"
    )


def _slowness(target: OpenWebuiTarget, figures: Figures) -> Finding | None:
    latency = float(figures["latency_ms"] or 0)
    if latency < target.thresholds.latency_ms:
        return None
    return Finding(failure_type="high_latency", summary=f"health took {latency:.0f} ms")


def _is_repair(target: OpenWebuiTarget) -> bool:
    return target.memory is not None and target.memory.recovery_id is not None


def _well(figures: Figures) -> str:
    said = [f"health {figures['latency_ms']} ms"]
    if "models" in figures:
        said.append(f"{figures['models']} models")
    if "completion_ms" in figures:
        said.append(f"{figures['model']} answers in {figures['completion_ms']:.0f} ms")
    return ", ".join(said)

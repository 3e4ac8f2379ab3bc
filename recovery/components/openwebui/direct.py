"""The road past Open WebUI: its provider asked, so that nobody is sent there in vain."""

from __future__ import annotations

import time
from http import HTTPStatus

from recovery.components.openwebui.api import TEST, TEST_TOKENS, Tested
from recovery.components.openwebui.conversation import Answer, Conversation
from recovery.components.openwebui.findings import (
    Finding,
    Unanswered,
    away,
    of_completion,
    of_service,
)
from recovery.components.openwebui.target import DirectProvider, OpenWebuiTarget
from recovery.credentials import for_header, named, reveal
from recovery.errors import NotConfigured, TargetRefused
from recovery.events import Figure, ProbeReport
from recovery.routes import Provider


def prove(target: OpenWebuiTarget, timeout: float) -> ProbeReport:
    """A probe of the direct road, whatever Open WebUI itself is like."""
    figures: dict[str, Figure] = {}
    try:
        provider = provider_of(target)
        figures |= {"provider": provider.provider.value, "direct_model": provider.model}
        tested = test(provider, target.completion_timeout, timeout)
    except (NotConfigured, TargetRefused) as error:
        return Finding(failure_type="auth_failure", summary=error.message).as_report(figures)
    figures["direct_ms"] = round(tested.seconds * 1000, 1)
    if tested.finding is not None:
        return tested.finding.as_report(figures)
    summary = f"{provider.model} answers directly in {figures['direct_ms']} ms"
    return ProbeReport(healthy=True, summary=summary, figures=figures)


def provider_of(target: OpenWebuiTarget) -> DirectProvider:
    """Raises ``NotConfigured``."""
    if target.direct is None:
        raise NotConfigured("no direct provider to lead people to", {"key": "direct"})
    return target.direct


def test(direct: DirectProvider, patience: float, seconds: float) -> Tested:
    """Raises ``NotConfigured`` and ``TargetRefused`` where it cannot even be asked."""
    headers, began = _headers(direct), time.monotonic()
    try:
        with Conversation(direct.base_url, seconds, headers=headers) as conversation:
            finding = _ask(direct, conversation, patience)
    except Unanswered as error:
        finding = error.finding
    return Tested(finding, time.monotonic() - began)


def _ask(direct: DirectProvider, conversation: Conversation, patience: float) -> Finding | None:
    if direct.test == "listing":
        return _listed(direct, conversation.get(_path(direct, "models"), patience))
    said = {
        "model": direct.model,
        "max_tokens": TEST_TOKENS,
        "messages": [{"role": "user", "content": TEST}],
    }
    kind = "messages" if direct.provider is Provider.ANTHROPIC else "chat/completions"
    answer = conversation.post(_path(direct, kind), said, patience)
    return _about_the_key(direct, answer) or of_completion(answer, direct.model)


def _listed(direct: DirectProvider, answer: Answer) -> Finding | None:
    where = direct.base_url
    if (found := _about_the_key(direct, answer) or of_service(answer, where)) is not None:
        return found
    if answer.status != HTTPStatus.OK:
        return away(f"{where} answers {answer.status}: {answer.said('error') or ''}")
    listed = answer.body.get("data") if isinstance(answer.body, dict) else None
    if not isinstance(listed, list):
        return away(f"{where} answers something else than a list of models")
    names = [one.get("id") for one in listed if isinstance(one, dict)]
    if direct.model in names:
        return None
    return Finding(
        failure_type="model_unavailable", summary=f"{where} lists no model {direct.model}"
    )


def _about_the_key(direct: DirectProvider, answer: Answer) -> Finding | None:
    if answer.status not in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return None
    return Finding(
        failure_type="auth_failure", summary=f"{direct.base_url} refuses the key ({answer.status})"
    )


def _path(direct: DirectProvider, what: str) -> str:
    """Under ``/v1``, which a base URL may hold already."""
    return f"/{what}" if direct.base_url.endswith("/v1") else f"/v1/{what}"


def _headers(direct: DirectProvider) -> dict[str, str]:
    key = for_header(_key(direct), "the provider's key")
    if direct.provider is Provider.ANTHROPIC:
        own = {"x-api-key": key or "", "anthropic-version": direct.anthropic_version}
    else:
        own = {"Authorization": f"Bearer {key}"} if key else {}
    return {**direct.headers, **own}


def _key(direct: DirectProvider) -> str | None:
    if direct.api_key_env is None:
        return reveal(None, direct.api_key_file)
    key = named(direct.api_key_env)
    if key is None:
        raise NotConfigured(
            f"{direct.api_key_env} is not set on this host", {"key": "direct.api_key_env"}
        )
    return key

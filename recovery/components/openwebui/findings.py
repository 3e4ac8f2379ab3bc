"""What an answer means: which failure it is, judged by its body before its status.

The same status says different things: 401 with ``detail`` is our token, 401 with ``error`` the key
of the server behind the model; 429 with ``detail`` is the limiter of sign-ins, with ``error`` the
model's own limit. A page with 200 is no answer at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from recovery.errors import RemedyError, TargetRefused, TargetUnreachable
from recovery.events import Figure, ProbeReport

if TYPE_CHECKING:
    from recovery.components.openwebui.conversation import Answer

LONGEST_SUMMARY = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One failure, by the name under which the policy answers it, and a sentence for people."""

    failure_type: str
    summary: str
    figures: dict[str, Figure] = field(default_factory=dict)

    def as_report(self, figures: dict[str, Figure]) -> ProbeReport:
        return ProbeReport(
            healthy=False,
            failure_type=self.failure_type,
            summary=self.summary[:LONGEST_SUMMARY],
            figures={**figures, **self.figures},
        )

    def as_error(self) -> RemedyError:
        """As a remedy says that it could not go on."""
        if self.failure_type in {"service_unavailable", "connection_timeout", "maintenance"}:
            return TargetUnreachable(self.summary)
        if self.failure_type == "auth_failure":
            return TargetRefused(self.summary)
        return RemedyError(self.summary)


class Unanswered(Exception):
    """There is no usable answer; ``finding`` says which failure that is."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.summary)
        self.finding = finding


def away(summary: str) -> Finding:
    return Finding(failure_type="service_unavailable", summary=summary)


def late(summary: str) -> Finding:
    return Finding(failure_type="connection_timeout", summary=summary)


def of_service(answer: Answer, where: str) -> Finding | None:
    """What stands before the answer's own meaning: a proxy, a login page, maintenance, a wrong
    address; None where the service itself speaks."""
    if HTTPStatus.MULTIPLE_CHOICES <= answer.status < HTTPStatus.BAD_REQUEST:
        return away(f"{where} redirects ({answer.status}): a login page stands in front of it")
    if answer.is_json:
        return None
    if answer.status == HTTPStatus.SERVICE_UNAVAILABLE and ("retry-after" in answer.headers):
        return _timed("maintenance", f"{where} says 503 and when to come back", answer)
    if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
        return Finding(failure_type="maintenance", summary=f"{where} answers 503 with a page")
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        return _timed("rate_limiting", f"{where} limits our requests", answer)
    return away(f"{where} answers {answer.status} and no JSON")


def of_refusal(answer: Answer, where: str) -> Finding | None:
    """What it means where Open WebUI did not do what was asked; None where it did."""
    if (foreign := of_service(answer, where)) is not None:
        return foreign
    if answer.status == HTTPStatus.OK:
        return None
    detail = answer.said("detail")
    if answer.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} and detail is not None:
        return Finding(
            failure_type="auth_failure", summary=f"{where} refuses the token ({answer.status})"
        )
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        return _timed("rate_limiting", f"{where} limits our requests: {detail}", answer)
    return away(f"{where} answers {answer.status}: {detail or answer.said('error') or ''}")


def of_completion(answer: Answer, model: str) -> Finding | None:
    """What a test of a model says, whoever was asked; None where it answered."""
    name = f"model {model}"
    if answer.has("error"):
        return _of_upstream(answer, name)
    if answer.status == HTTPStatus.OK and not answer.is_json:
        return _model_error(f"{name} answers 200 and no JSON")
    detail = answer.said("detail")
    if (
        answer.status in {HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND}
        and detail is not None
        and "ound" in detail
    ):
        return Finding(failure_type="model_unavailable", summary=f"{name} is not there: {detail}")
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR and detail is not None:
        return _model_error(f"what is behind {name} does not answer: {detail}")
    if (refused := of_refusal(answer, f"the test of {name}")) is not None:
        return refused
    return None if _has_words(answer) else _model_error(f"{name} answers 200 and no words")


def _of_upstream(answer: Answer, name: str) -> Finding:
    """An ``error`` comes from the server behind the model: our own token is well."""
    said = answer.said("error")
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        return _timed("rate_limiting", f"{name} is limited: {said}", answer)
    if answer.status == HTTPStatus.NOT_FOUND:
        return Finding(failure_type="model_unavailable", summary=f"{name} is not there: {said}")
    if answer.status == HTTPStatus.UNAUTHORIZED:
        return _model_error(f"the key of what is behind {name} is refused: {said}")
    return _model_error(f"{name} fails ({answer.status}): {said}")


def _has_words(answer: Answer) -> bool:
    """Whether it has the shape of a completion: ``choices``, or Anthropic's ``content``."""
    body = answer.body
    said = (body.get("choices") or body.get("content")) if isinstance(body, dict) else None
    return isinstance(said, list) and any(isinstance(one, dict) and one for one in said)


def _model_error(summary: str) -> Finding:
    return Finding(failure_type="model_error", summary=summary)


def _timed(failure_type: str, summary: str, answer: Answer) -> Finding:
    """With how long to wait, where that is said."""
    wait = answer.retry_after
    figures: dict[str, Figure] = {} if wait is None else {"retry_after": wait}
    until = "" if wait is None else f"; again in {wait:g} s"
    return Finding(failure_type=failure_type, summary=f"{summary}{until}", figures=figures)

"""Open WebUI's HTTP API, as far as it is asked: health, sign-in, session, models, a completion."""

from __future__ import annotations

import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Self

from recovery.components.openwebui import tokens
from recovery.components.openwebui.conversation import Answer, Conversation
from recovery.components.openwebui.findings import (
    Finding,
    Unanswered,
    away,
    of_completion,
    of_refusal,
    of_service,
)
from recovery.components.openwebui.target import OpenWebuiTarget
from recovery.components.openwebui.tokens import Token

TEST_TOKENS = 8
TEST = "Answer with one word: ready"


class SignInRefused(Exception):
    """No later attempt with the same credentials will do better."""


class SignInLimited(Exception):
    """The limiter refuses every sign-in of this account, the right password included."""


@dataclass(frozen=True, slots=True)
class Tested:
    """A test of one model: why it failed, or how long its answer took."""

    finding: Finding | None
    seconds: float


class OpenWebui:
    """One conversation with the server; every call raises ``Unanswered``."""

    def __init__(self, target: OpenWebuiTarget, seconds: float, token: str | None = None) -> None:
        self._target = target
        self._url = target.base_url
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = Conversation(
            target.base_url, seconds, headers=headers, ca_file=target.tls_ca_file
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *caught: object) -> None:
        self._http.__exit__(*caught)

    def health(self) -> float:
        """Seconds until it said that it lives."""
        answer = self._get("/health")
        self._judge(of_service(answer, f"{self._url}/health"))
        if answer.status != HTTPStatus.OK or not answer.has("status"):
            raise Unanswered(away(f"{self._url} answers {answer.status}, and is no Open WebUI"))
        return answer.seconds

    def readiness(self) -> None:
        """Releases that know no ``/ready`` answer with a page, which says nothing."""
        answer = self._get("/ready")
        if answer.is_json and answer.status != HTTPStatus.OK:
            raise Unanswered(away(f"{self._url} is not ready: {answer.said('detail')}"))

    def version(self) -> str | None:
        answer = self._get("/api/version")
        return answer.said("version") if answer.is_json else None

    def session(self) -> float | None:
        """When the token runs out, by the server's word; not for API keys."""
        answer = self._get("/api/v1/auths/")
        self._judge(of_refusal(answer, f"{self._url}/api/v1/auths/"))
        if not isinstance(answer.body, dict):
            raise Unanswered(
                away(f"{self._url}/api/v1/auths/ answers something else than a session")
            )
        return tokens.moment(answer.body.get("expires_at"))

    def models(self, *, refresh: bool) -> list[str]:
        """What is listed, which may be dead. ``refresh`` has the servers behind it asked anew,
        unless one of them takes so long that the list of before has to do."""
        if refresh:
            try:
                return self._listed("/api/models?refresh=true", self._target.completion_timeout)
            except Unanswered as error:
                if error.finding.failure_type != "connection_timeout":
                    raise
        return self._listed("/api/models", self._target.answer_timeout)

    def _listed(self, path: str, patience: float) -> list[str]:
        answer = self._http.get(path, patience)
        self._judge(of_refusal(answer, f"{self._url}/api/models"))
        listed = answer.body.get("data") if isinstance(answer.body, dict) else None
        if not isinstance(listed, list):
            raise Unanswered(away(f"{self._url}/api/models answers something else than a list"))
        named = (one.get("id") for one in listed if isinstance(one, dict))
        return [name for name in named if isinstance(name, str)]

    def test(self, model: str) -> Tested:
        """Ask a model for a word. A failure is an answer here; raises nothing."""
        began = time.monotonic()
        said: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": TEST}],
            "max_tokens": TEST_TOKENS,
            "stream": False,
        }
        try:
            answer = self._http.post("/api/chat/completions", said, self._target.completion_timeout)
            finding = of_completion(answer, model)
        except Unanswered as error:
            finding = Finding(
                failure_type="model_error", summary=f"model {model}: {error.finding.summary}"
            )
        return Tested(finding, time.monotonic() - began)

    def sign_in(self, email: str, password: str) -> Token:
        """Raises ``SignInRefused``, ``SignInLimited`` and ``Unanswered``."""
        path = self._target.login_path
        said = {"email": email, "password": password}
        answer = self._http.post(path, said, self._target.answer_timeout)
        where = f"{self._url}{path}"
        if answer.is_json and answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            raise SignInLimited(f"{where} takes no more sign-ins of this account for now")
        if answer.is_json and answer.status in {
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.UNAUTHORIZED,
            HTTPStatus.FORBIDDEN,
            HTTPStatus.NOT_FOUND,
            HTTPStatus.METHOD_NOT_ALLOWED,
            HTTPStatus.UNPROCESSABLE_ENTITY,
        }:
            raise _refused(answer, where)
        self._judge(of_refusal(answer, where))
        try:
            return tokens.from_sign_in(answer.body)
        except ValueError as error:
            raise Unanswered(away(f"{where}: {error}")) from None

    def _get(self, path: str) -> Answer:
        return self._http.get(path, self._target.answer_timeout)

    @staticmethod
    def _judge(finding: Finding | None) -> None:
        if finding is not None:
            raise Unanswered(finding)


def _refused(answer: Answer, where: str) -> SignInRefused:
    """400 is a wrong password on today's Open WebUI, 401 on others; 403 a sign-in switched off."""
    if answer.status in {
        HTTPStatus.NOT_FOUND,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }:
        return SignInRefused(f"{where} takes no sign-ins ({answer.status}): is login_path right?")
    if answer.status == HTTPStatus.FORBIDDEN:
        return SignInRefused(f"{where}: signing in with a password is switched off; use an api_key")
    return SignInRefused(f"{where} refuses e-mail or password")

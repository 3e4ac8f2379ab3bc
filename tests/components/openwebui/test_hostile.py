"""What a server that means harm, or a secret with too much in it, may not bring about."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from recovery.components.openwebui import direct, tokens
from recovery.components.openwebui.api import OpenWebui
from recovery.components.openwebui.conversation import MOST_BYTES, Conversation
from recovery.components.openwebui.findings import Unanswered, of_completion
from recovery.components.openwebui.probe import probe
from recovery.components.openwebui.target import OpenWebuiTarget
from tests.components.openwebui.describing import DIRECT_KEY
from tests.web import WebServer

SECRET = "sk-very-secret-in-clear"
ODD: list[Any] = [
    None,
    [],
    7,
    "text",
    {},
    {"data": 5},
    {"data": None},
    {"data": [None, 1, {"id": 2}]},
]


@dataclass
class Hostile:
    """Says the same to everybody; what was asked with which headers is remembered."""

    said: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | None = None
    asked: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server = WebServer(
            Starlette(routes=[Route("/{rest:path}", self._answer, methods=["GET", "POST"])])
        )

    async def _answer(self, request: Request) -> Response:
        self.asked.append(dict(request.headers))
        if self.content is not None:
            return Response(self.content, media_type="application/json", headers=self.headers)
        return JSONResponse(self.said, headers=self.headers)


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    found = Hostile()
    found.server.start()
    yield found
    found.server.kill()


def provider(hostile: Hostile, **said: Any) -> OpenWebuiTarget:
    about = {"provider": "openai", "base_url": hostile.server.url, "model": "m", **said}
    return OpenWebuiTarget.model_validate({"base_url": hostile.server.url, "direct": about})


@pytest.mark.parametrize("too_much", ["\nsecond line", "\x07", "€", "\nX-Admin: yes"])
def test_a_key_that_no_header_can_hold_is_told_to_nobody(
    hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, too_much: str
) -> None:
    file = tmp_path / "key"
    file.write_text(f"{SECRET}{too_much}")
    monkeypatch.setenv(DIRECT_KEY, f"{SECRET}{too_much}")

    for key in ({"api_key_file": file}, {"api_key_env": DIRECT_KEY}):
        found = direct.prove(provider(hostile, **key), 10.0)

        assert found.failure_type == "auth_failure"
        assert SECRET not in str(found.as_dict())
    assert hostile.asked == []


def test_the_newline_after_a_key_in_the_environment_is_no_part_of_it(
    hostile: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DIRECT_KEY, f"{SECRET}\n")
    hostile.said = {"choices": [{"message": {"content": "ready"}}]}

    assert direct.prove(provider(hostile, api_key_env=DIRECT_KEY), 10.0).healthy
    assert hostile.asked[0]["authorization"] == f"Bearer {SECRET}"


def test_a_header_that_cannot_be_sent_shows_in_no_error(hostile: Hostile) -> None:
    with (
        Conversation(hostile.server.url, 10.0, headers={"X": f"{SECRET}\nmore"}) as conversation,
        pytest.raises(Unanswered) as caught,
    ):
        conversation.get("/health", 5.0)

    assert SECRET not in str(caught.value)


def test_a_packed_answer_is_not_unpacked(hostile: Hostile) -> None:
    hostile.content = zlib.compress(bytes(MOST_BYTES // 2), 9)
    hostile.headers = {"content-encoding": "deflate"}

    with (
        Conversation(hostile.server.url, 10.0) as conversation,
        pytest.raises(Unanswered, match="packed"),
    ):
        conversation.get("/health", 5.0)


@pytest.mark.parametrize("said", ODD, ids=str)
def test_odd_answers_are_failures_and_never_healthy(hostile: Hostile, said: Any) -> None:
    hostile.said = said

    with OpenWebui(provider(hostile), 10.0, "token") as webui:
        for ask in (lambda: webui.models(refresh=True), webui.session):
            try:
                ask()
            except Unanswered:
                continue
        assert webui.test("m").finding is not None
    assert not probe(provider(hostile), 10.0).healthy
    assert not direct.prove(provider(hostile, test="listing"), 10.0).healthy
    assert not direct.prove(provider(hostile), 10.0).healthy


@pytest.mark.parametrize("choices", [[None], [[]], [{}], [1], {"a": 1}, "words"])
def test_a_list_of_nothing_is_no_completion(hostile: Hostile, choices: Any) -> None:
    hostile.said = {"choices": choices}

    with Conversation(hostile.server.url, 10.0) as conversation:
        assert of_completion(conversation.get("/x", 5.0), "m") is not None


@pytest.mark.parametrize(("said", "wait"), [("inf", None), ("nan", None), ("1e300", 86_400.0)])
def test_no_server_may_send_us_away_for_ever(
    hostile: Hostile, said: str, wait: float | None
) -> None:
    hostile.said, hostile.headers = {}, {"retry-after": said}

    with Conversation(hostile.server.url, 10.0) as conversation:
        assert conversation.get("/x", 5.0).retry_after == wait


@pytest.mark.parametrize(
    "said", [10**400, float("inf"), float("nan"), 1e300, -1, True, "1", None], ids=lambda _: ""
)
def test_a_moment_that_is_none_is_none(said: Any) -> None:
    assert tokens.moment(said) is None
    assert tokens.from_sign_in({"token": "t", "expires_at": said}).expires is None

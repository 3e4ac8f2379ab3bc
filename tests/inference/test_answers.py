"""A healthy road: what is sent, and what comes back, in one shape."""

from __future__ import annotations

import pytest
from starlette.responses import JSONResponse

from recovery.encryption import encrypt
from recovery.inference import Road, Stop, Usage
from recovery.inference.conversation import conversation
from tests.inference.conftest import QUESTION, Askers, Stage, direct
from tests.upstreams import ANSWER, KEY, AnthropicUpstream, OpenAiUpstream

USAGE = Usage(input_tokens=3, output_tokens=7)


def test_an_answer_by_openwebui(
    stage: Stage, asker: Askers, openai_upstream: OpenAiUpstream
) -> None:
    answer = asker().chat(QUESTION, system="Be brief.", max_tokens=9, temperature=0.5, stop="END")

    assert (answer.text, str(answer)) == (ANSWER, ANSWER)
    assert (answer.road, answer.stop, answer.usage) == (Road.OPENWEBUI, Stop.END, USAGE)
    assert (answer.model, answer.after) == ("llama-3", "")
    (asked,) = openai_upstream.requests
    assert asked == {
        "model": "llama-3",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": QUESTION},
        ],
        "max_tokens": 9,
        "temperature": 0.5,
        "stop": ["END"],
    }
    assert stage.anthropic.requests == []


def test_a_stream_by_openwebui(stage: Stage, asker: Askers) -> None:
    pieces, answer = asker().stream(QUESTION)

    assert [piece.strip() for piece in pieces] == ANSWER.split(" ")
    assert answer.text == "".join(pieces)
    assert (answer.road, answer.stop, answer.model) == (Road.OPENWEBUI, Stop.END, "llama-3")


def test_the_control_plane_can_prefer_the_direct_road(stage: Stage, asker: Askers) -> None:
    stage.route(road="direct")

    answer = asker().chat(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello."},
            {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
            {"role": "developer", "content": "In English."},
            {"role": "assistant", "content": ""},
        ],
        temperature=2.0,
        stop=["END"],
    )

    assert (answer.text, answer.road, answer.stop) == (ANSWER, Road.DIRECT, Stop.END)
    assert (answer.usage, answer.model) == (USAGE, "claude-test")
    (asked,) = stage.anthropic.requests
    assert asked == {
        "model": "claude-test",
        "max_tokens": 256,
        "system": "Be brief.\n\nIn English.",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Hello."},
                    {"type": "text", "text": QUESTION},
                ],
            }
        ],
        "temperature": 1.0,
        "stop_sequences": ["END"],
    }
    (headers,) = stage.anthropic.headers
    assert (headers["x-api-key"], headers["anthropic-version"]) == (KEY, "2023-06-01")
    assert stage.openwebui.requests == []


def test_a_stream_by_the_direct_road(stage: Stage, asker: Askers) -> None:
    stage.route(road="direct")

    pieces, answer = asker().stream(QUESTION)

    assert len(pieces) == len(ANSWER.split(" "))
    assert (answer.road, answer.stop, answer.usage) == (Road.DIRECT, Stop.END, USAGE)


@pytest.mark.parametrize("path", ["", "/v1"])
def test_the_direct_road_may_be_anything_that_speaks_openais_way(
    stage: Stage, asker: Askers, path: str
) -> None:
    other = OpenAiUpstream("mistral")
    other.start()
    stage.route(
        road="direct",
        direct=direct(
            stage.anthropic,
            provider="openai",
            base_url=f"{other.url}{path}",
            model="mistral",
            headers={"X-Team": "search", "Authorization": "Bearer not-theirs"},
        ),
    )
    ours = asker()

    assert ours.chat(QUESTION).text == ANSWER
    assert ours.stream(QUESTION)[1].road is Road.DIRECT
    assert other.headers[0]["x-team"] == "search"
    assert other.headers[0]["authorization"] == f"Bearer {KEY}"
    other.kill()


def test_images_reach_anthropic_as_it_wants_them(stage: Stage, asker: Askers) -> None:
    stage.route(road="direct")
    images = ["data:image/png;base64,aGk=", "https://example.com/cat.png"]

    asker().chat(
        [
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": url}} for url in images],
            }
        ]
    )

    first, second = stage.anthropic.requests[0]["messages"][0]["content"]
    assert first["source"] == {"type": "base64", "media_type": "image/png", "data": "aGk="}
    assert second["source"] == {"type": "url", "url": images[1]}


def test_whoever_asks_for_the_primary_model_gets_the_active_one(
    stage: Stage, asker: Askers, openai_upstream: OpenAiUpstream
) -> None:
    ours = asker()
    ours.chat(QUESTION, model="llama-3")
    stage.route(model="deepseek-chat")

    for model in (None, "llama-3", "gemini-pro"):
        ours.chat(QUESTION, model=model)

    assert openai_upstream.asked_models == [
        "llama-3",
        "deepseek-chat",
        "deepseek-chat",
        "gemini-pro",
    ]


def test_a_new_token_holds_from_the_next_request_on(stage: Stage, asker: Askers) -> None:
    ours = asker()
    assert ours.chat(QUESTION).road is Road.OPENWEBUI
    stage.openwebui.secret = b"second"

    assert ours.chat(QUESTION).after == "auth_failure"
    stage.route(token=stage.token())

    assert ours.chat(QUESTION).road is Road.OPENWEBUI


def test_an_api_key_of_openwebui_is_a_token_like_any(stage: Stage, asker: Askers) -> None:
    stage.route(token=encrypt(stage.openwebui.api_key()), token_kind="api_key")

    assert asker().chat(QUESTION).road is Road.OPENWEBUI


def test_what_cannot_be_sent_is_the_callers_error() -> None:
    for messages in (
        [],
        [{"role": "system", "content": "alone"}],
        [{"role": "tool", "content": "x"}],
        [{"role": "user", "content": 3}],
        [{"role": "user", "content": [{"type": "video"}]}],
        [{"content": "x"}],
    ):
        with pytest.raises(ValueError, match="message"):
            conversation(messages)


def test_a_server_that_does_not_stream_is_a_stream_of_one(
    stage: Stage, asker: Askers, anthropic_upstream: AnthropicUpstream
) -> None:
    stage.route(road="direct")

    async def whole(request: object, mode: str, model: str) -> JSONResponse:
        return JSONResponse(anthropic_upstream.answer(model))

    anthropic_upstream.misbehave = whole  # type: ignore[method-assign, assignment]

    pieces, answer = asker().stream(QUESTION)

    assert (pieces, answer.text) == ([ANSWER], ANSWER)

"""Every way in which a road fails: the other one answers, or the error says why; once each."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme

from recovery.encryption import encrypt
from recovery.inference import (
    Client,
    Direct,
    Limits,
    NoAnswer,
    NoRoad,
    RequestRejected,
    Road,
    StreamBroken,
)
from tests.inference.conftest import QUESTION, TARGET, Askers, Stage, direct
from tests.openwebui import OpenWebui
from tests.resolver import NAME, silence
from tests.servers import black_hole, free_port
from tests.upstreams import ANSWER, KEY, OpenAiUpstream
from tests.waiting import until

__all__ = ["silence"]


def events(stage: Stage) -> list[str]:
    """The failure types that were told and that no dispatcher has taken yet."""
    found = []
    for text in stage.control.redis.lrange("dispatch", 0, -1):
        body = json.loads(base64.b64decode(json.loads(text)["body"]))[1]
        assert body["component"] == "openwebui"
        found.append(body["failure_type"])
    return found


def both_ways(asker: Any) -> list[str]:
    """A question and a stream: by which road each was answered, and after which failure."""
    answer = asker.chat(QUESTION)
    assert answer.text == ANSWER
    asker.roads.health.forgive(Road.OPENWEBUI)
    _, streamed = asker.stream(QUESTION)
    assert streamed.text.strip() == ANSWER
    assert answer.road is streamed.road
    asker.roads.health.forgive(Road.OPENWEBUI)
    return [answer.road.value, answer.after, streamed.after]


INSTEAD = {
    "malformed": "model_error",
    "html": "service_unavailable",
    "login": "service_unavailable",
    "drop": "service_unavailable",
    "cut": "service_unavailable",
    "maintenance": "maintenance",
    "429": "rate_limiting",
    "500": "service_unavailable",
    "502": "service_unavailable",
    "504": "connection_timeout",
    "403": "service_unavailable",
}
BEHIND = {
    "malformed": "model_error",
    "empty": "model_error",
    "401": "model_error",
    "429": "rate_limiting",
    "500": "model_error",
    "503": "model_error",
    "drop": "model_error",
}


def test_what_openwebui_answers_instead_is_a_failure_and_the_other_road_answers(
    stage: Stage, asker: Askers
) -> None:
    met = {}
    for mode in INSTEAD:
        stage.openwebui.modes["/api/chat/completions"] = mode
        met[mode] = both_ways(asker())

    assert met == {mode: ["direct", kind, kind] for mode, kind in INSTEAD.items()}
    until(lambda: set(events(stage)) == set(INSTEAD.values()), seconds=40, what="all are told")


def test_what_stands_behind_openwebui_fails_and_the_other_road_answers(
    stage: Stage, asker: Askers, openai_upstream: OpenAiUpstream
) -> None:
    met = {}
    for mode in BEHIND:
        openai_upstream.mode = mode
        met[mode] = both_ways(asker())[:2]

    assert met == {mode: ["direct", kind] for mode, kind in BEHIND.items()}


def test_a_model_that_is_gone_and_an_empty_list_are_told_as_such(
    stage: Stage, asker: Askers, openai_upstream: OpenAiUpstream
) -> None:
    ours = asker()
    stage.route(model="no-such-model")
    assert both_ways(ours) == ["direct", "model_unavailable", "model_unavailable"]
    openai_upstream.kill()
    stage.openwebui.known = []

    assert both_ways(ours) == ["direct", "model_unavailable", "model_unavailable"]


def test_our_token_and_the_upstreams_key_are_told_apart(
    stage: Stage, asker: Askers, openai_upstream: OpenAiUpstream
) -> None:
    ours = asker()
    assert ours.chat(QUESTION).road is Road.OPENWEBUI
    stage.openwebui.secret = b"second"
    assert both_ways(ours)[1:] == ["auth_failure", "auth_failure"]
    stage.route(token=stage.token())
    openai_upstream.key = "another"
    stage.openwebui.upstream = OpenAiUpstream("llama-3", key="not-that-one")
    stage.openwebui.upstream.server = openai_upstream.server

    assert both_ways(ours)[1:] == ["model_error", "model_error"]


@pytest.mark.kill
def test_a_killed_and_an_unreachable_openwebui(stage: Stage, asker: Askers) -> None:
    ours = asker()
    stage.openwebui.kill()
    assert both_ways(ours) == ["direct", "service_unavailable", "service_unavailable"]
    with black_hole() as port:
        stage.route(base_url=f"http://127.0.0.1:{port}")
        assert asker(limits=Limits(connect=1)).chat(QUESTION).after == "connection_timeout"


def test_an_untrusted_certificate_is_a_failure_and_a_trusted_one_is_none(
    stage: Stage, asker: Askers, openai_upstream: OpenAiUpstream, tmp_path: Path
) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    key.write_bytes(issued.private_key_pem.bytes())
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    secure = OpenWebui(openai_upstream, tls=(chain, key))
    secure.start()
    stage.route(base_url=secure.url, token=encrypt(secure.token()))

    assert both_ways(asker()) == ["direct", "service_unavailable", "service_unavailable"]
    stage.route(direct=None)
    with pytest.raises(NoAnswer, match="TLS failed"):
        asker().chat(QUESTION)
    assert both_ways(asker(ssl_context=_trusting(authority))) == ["openwebui", "", ""]
    secure.kill()


def _trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.parametrize("mode", ["drip", "drip_body", "hang"])
def test_what_never_ends_is_left_in_time(stage: Stage, asker: Askers, mode: str) -> None:
    stage.openwebui.modes["/api/chat/completions"] = mode
    assert asker(limits=Limits(total=6)).chat(QUESTION).after == "connection_timeout"
    stage.route(direct=None)

    with pytest.raises(NoAnswer, match="no answer in time"):
        asker(limits=Limits(total=1)).stream(QUESTION)


@pytest.mark.kill
def test_a_server_that_hangs_is_left_though_there_is_time_and_a_slow_model_is_not(
    stage: Stage, asker: Askers, openai_upstream: OpenAiUpstream
) -> None:
    stage.openwebui.mode = "hang"
    ours = asker()

    assert both_ways(ours) == ["direct", "connection_timeout", "connection_timeout"]

    stage.openwebui.mode = "answer"
    promptly = openai_upstream.misbehave

    async def slowly(request: Any, mode: str, model: str) -> Any:
        # The list of models has no model, and comes at once.
        await asyncio.sleep(3 if model else 0)
        return await promptly(request, mode, model)

    openai_upstream.misbehave = slowly  # type: ignore[method-assign]
    assert ours.chat(QUESTION).road is Road.OPENWEBUI


def test_a_request_that_waits_goes_over_when_the_control_plane_takes_the_other_road(
    stage: Stage, asker: Askers
) -> None:
    stage.openwebui.modes["/api/chat/completions"] = "hang"
    ours = asker()

    def asked() -> bool:
        return "POST /api/chat/completions" in stage.openwebui.requests

    turn = threading.Thread(
        target=lambda: until(asked, seconds=30) and stage.route(road="direct"), daemon=True
    )
    turn.start()

    assert ours.chat(QUESTION).after == "connection_timeout"
    turn.join()


async def cut_after(count: int, events: AsyncIterator[str]) -> AsyncIterator[str]:
    async for event in events:
        yield event
        count -= 1
        if not count:
            raise ConnectionResetError("cut on purpose")


@pytest.mark.parametrize("road", ["openwebui", "direct"])
def test_a_truncated_stream_is_never_a_whole_answer(
    stage: Stage, asker: Askers, openai_upstream: OpenAiUpstream, road: str
) -> None:
    stage.route(road=road)
    openai_upstream.mode = stage.anthropic.mode = "cut"
    stage.anthropic.broken_off = lambda model: cut_after(4, stage.anthropic.stream(model))  # type: ignore[method-assign]
    got: list[str] = []

    with pytest.raises(StreamBroken) as raised:
        asker().pieces(got, QUESTION)

    assert 0 < len(got) < len(ANSWER.split(" "))
    assert raised.value.facts["failures"][0]["road"] == road
    assert raised.value.__context__ is None


def test_a_stream_that_ends_without_its_end_is_broken(
    stage: Stage, asker: Askers, openai_upstream: OpenAiUpstream
) -> None:
    whole, ours = openai_upstream.stream, asker()
    for ending in (
        "",
        'data: {"error": {"message": "overloaded"}}\n\n',
        "data: {broken\n\n",
        "data: 3\n\n",
        'data: {"choices": 3}\n\n',
    ):

        async def stream(model: str, ending: str = ending) -> Any:
            async for event in whole(model):
                if '"stop"' in event:
                    break
                yield event
            if ending:
                yield ending

        openai_upstream.stream = stream  # type: ignore[method-assign]
        ours.roads.health.forgive(Road.OPENWEBUI)

        with pytest.raises(StreamBroken):
            ours.stream(QUESTION)


def test_a_stream_that_fails_before_its_first_text_is_answered_by_the_other_road(
    stage: Stage, asker: Askers, openai_upstream: OpenAiUpstream
) -> None:
    async def stream(model: str) -> Any:
        yield ": a comment\n\n"
        yield 'data: {"choices": [{"delta": {"role": "assistant"}}]}\n\n'

    openai_upstream.stream = stream  # type: ignore[method-assign]

    _, answer = asker().stream(QUESTION)

    assert (answer.road, answer.after) == (Road.DIRECT, "model_error")


def test_a_stream_that_drips_comments_is_left_after_its_silence(
    stage: Stage, asker: Askers, openai_upstream: OpenAiUpstream
) -> None:
    async def stream(model: str) -> Any:
        yield 'data: {"choices": [{"delta": {"content": "Paris "}}]}\n\n'
        while True:
            yield ": still here\n\n"
            await asyncio.sleep(0.05)

    openai_upstream.stream = stream  # type: ignore[method-assign]
    got: list[str] = []

    with pytest.raises(StreamBroken, match="connection_timeout"):
        asker(limits=Limits(total=60, silence=0.5)).pieces(got, QUESTION)

    assert got == ["Paris "]


def test_a_stream_left_early_leaves_no_connection_behind(stage: Stage) -> None:
    with Client() as client:
        with client.stream(QUESTION) as stream:
            assert next(stream).strip() == "Paris"
            with pytest.raises(ValueError, match="not whole"):
                _ = stream.answer
        until(lambda: not client._wire.client._transport._pool.connections)  # type: ignore[attr-defined]


def test_a_request_that_is_refused_itself_is_not_asked_twice(stage: Stage, asker: Askers) -> None:
    stage.route(road="direct")

    async def refuse(*args: Any) -> Any:
        return stage.anthropic.error(400, f"max_tokens: too many for {KEY}")

    stage.anthropic.misbehave = refuse  # type: ignore[method-assign]

    with pytest.raises(RequestRejected, match="max_tokens: too many for …"):
        asker().chat(QUESTION)

    assert stage.openwebui.requests == []
    assert len(stage.anthropic.requests) == 1


def test_where_both_roads_fail_the_error_names_both(stage: Stage, asker: Askers) -> None:
    stage.openwebui.modes["/api/chat/completions"] = "500"
    for mode in ("401", "429", "500", "529", "html", "malformed", "drop", "cut"):
        stage.anthropic.mode = mode
        stage.anthropic.requests.clear()

        with pytest.raises(NoAnswer) as raised:
            asker().chat(QUESTION)

        first, second = raised.value.facts["failures"]
        assert (first["road"], second["road"]) == ("openwebui", "direct"), mode
        assert len(stage.anthropic.requests) == 1, mode
        assert raised.value.transient


def test_retry_after_is_honoured_and_an_odd_one_does_no_harm(stage: Stage, asker: Askers) -> None:
    stage.openwebui.modes["/api/chat/completions"] = "429"
    for said in (None, "30", "Wed, 21 Oct 2099 07:28:00 GMT", "soon", "nan", "1e9", "-3"):
        stage.openwebui.retry_after = said
        stage.openwebui.requests.clear()
        ours = asker()

        assert ours.chat(QUESTION).after == "rate_limiting"
        # While it is left alone nobody asks it.
        assert ours.chat(QUESTION).after == ""
        assert stage.openwebui.requests.count("POST /api/chat/completions") == 1, said


def test_a_road_that_was_left_alone_is_tried_again_and_taken_back(
    stage: Stage, asker: Askers
) -> None:
    stage.openwebui.modes["/api/chat/completions"] = "500"
    ours = asker()
    assert ours.chat(QUESTION).road is Road.DIRECT
    stage.openwebui.modes.clear()

    until(lambda: ours.chat(QUESTION).road is Road.OPENWEBUI, seconds=40)


def test_a_token_of_odd_shape_is_never_sent(stage: Stage, asker: Askers) -> None:
    ours = asker()
    for token in ("", " ", "two words", "line\nbreak", "naïve", "x" * 100_000, "\x00"):
        stage.route(token=encrypt(token))

        assert ours.chat(QUESTION).road is Road.DIRECT
        assert "POST /api/chat/completions" not in stage.openwebui.requests


def test_what_is_missing_here_leaves_the_other_road_and_is_said(
    stage: Stage, asker: Askers, environ: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environ.setenv("RECOVERY_SECRET_KEY", "no key")
    assert asker().chat(QUESTION).road is Road.DIRECT
    environ.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(NoRoad, match="ANTHROPIC_API_KEY is not set"):
        asker().chat(QUESTION)
    file = tmp_path / "key"
    stage.route(direct=direct(stage.anthropic, api_key_env=None, api_key_file=str(file)))
    with pytest.raises(NoRoad, match="cannot be read"):
        asker().chat(QUESTION)
    file.write_text(f"{KEY}\n")
    assert asker().chat(QUESTION).road is Road.DIRECT
    stage.route(direct=direct(stage.anthropic, api_key_env="RECOVERY_SECRET_KEY"))
    with pytest.raises(NoRoad, match="no provider's key"):
        asker().chat(QUESTION)


def test_an_address_that_is_none_is_no_road(stage: Stage, asker: Askers) -> None:
    ours = asker()
    for address in (
        "",
        "nowhere",
        "ftp://x",
        "http://user:hidden@127.0.0.1",
        "http://[",
        "http://x?y=1",
    ):
        stage.route(base_url=address)

        assert ours.chat(QUESTION).road is Road.DIRECT, address


def test_a_route_that_is_none_leaves_what_the_application_knows(
    stage: Stage, asker: Askers
) -> None:
    ours = asker(base_url=stage.openwebui.url, token=stage.openwebui.token(), model="llama-3")
    assert ours.chat(QUESTION).road is Road.OPENWEBUI
    stage.route(road="direct")
    key = stage.control.key("routes")
    for text in ("no json", "[]", "{}", '{"target": 3}', b"\xff"):
        stage.control.redis.publish(key, text)
    assert ours.chat(QUESTION).road is Road.DIRECT

    stage.control.redis.publish(key, json.dumps({"target": TARGET, "road": "by sea"}))

    until(lambda: ours.chat(QUESTION).road is Road.OPENWEBUI, seconds=40)


def test_no_secret_is_in_any_error_log_or_repr(
    stage: Stage, asker: Askers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = stage.openwebui.token()
    ours = asker(base_url=stage.openwebui.url, token=token, model="llama-3", api_key=KEY)
    stage.route(token=encrypt(token))
    shown = []
    for mode in ("html", "cut", "drop", "401", "429"):
        stage.openwebui.modes["/api/chat/completions"] = mode
        stage.anthropic.mode = mode
        for ask in (ours.chat, ours.stream):
            with pytest.raises(NoAnswer) as raised:
                ask(QUESTION)
            shown += [repr(raised.value), str(raised.value.facts), str(raised.value.__context__)]
            assert raised.value.__cause__ is None
            assert raised.value.__context__ is None
    plan = ours.roads.plan()
    shown += [repr(plan), repr(plan.endpoints), repr(ours.roads._own), caplog.text]
    shown += [repr(vars(ours.client)), repr(vars(ours.roads))]
    until(lambda: events(stage), seconds=40, what="it is told")
    with redis.Redis(port=stage.redis.port) as everything:
        shown += [repr(everything.dump(key)) for key in everything.scan_iter()]

    for secret in (token, KEY):
        assert [text for text in shown if secret in text] == []


def test_an_applications_own_key_is_for_the_provider_that_it_named_itself(
    stage: Stage, asker: Askers, environ: pytest.MonkeyPatch
) -> None:
    own = Direct.from_dict(direct(stage.anthropic, api_key_env=None))
    environ.setenv("ANTHROPIC_API_KEY", "the-routes-own")
    stage.route(road="direct")
    ours = asker(direct=own, api_key=KEY)
    assert ours.chat(QUESTION).road is Road.OPENWEBUI
    stage.route(direct=None)

    assert ours.chat(QUESTION).road is Road.DIRECT


def test_nothing_listens_anywhere(alone: None, asker: Askers) -> None:
    with pytest.raises(NoRoad, match="names none"):
        asker().chat(QUESTION)
    with pytest.raises(NoAnswer, match="no connection"):
        asker(base_url=f"http://127.0.0.1:{free_port()}", token="t", model="m").chat(QUESTION)


def test_a_name_that_the_resolver_keeps_to_itself_is_given_up_and_the_other_road_answers(
    stage: Stage, asker: Askers, silence: list[Any]
) -> None:
    stage.route(base_url=f"http://{NAME}:8080")
    asking = asker(limits=Limits(total=60, connect=0.5, silence=30, stream=60))

    answer = asking.chat(QUESTION)

    assert (answer.road, answer.text) == (Road.DIRECT, ANSWER)
    assert answer.after in {"connection_timeout", "service_unavailable"}
    assert silence

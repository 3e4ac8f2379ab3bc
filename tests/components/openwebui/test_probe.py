"""The health check of Open WebUI, against each way in which one fails."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import trustme

from recovery import encryption
from recovery.components.openwebui.probe import light, probe
from recovery.components.openwebui.target import OpenWebuiTarget
from recovery.memory import TargetMemory
from tests.components.openwebui.describing import PRIMARY, REF, described, store, with_token
from tests.openwebui import VERSION, OpenWebui
from tests.servers import RedisServer, free_port
from tests.upstreams import OpenAiUpstream

SECONDS = 10.0
PATIENCE = {"answer_timeout": "2s", "completion_timeout": "2s"}


@pytest.fixture
def brisk(openwebui: OpenWebui, memory: TargetMemory) -> OpenWebuiTarget:
    """A target with little patience and a good token."""
    with_token(openwebui, memory)
    return described(openwebui.url, memory, **PATIENCE)


def test_a_healthy_one_has_its_figures(
    target: OpenWebuiTarget, openwebui: OpenWebui, memory: TargetMemory
) -> None:
    with_token(openwebui, memory)

    found = probe(target, SECONDS)

    assert found.healthy, found.summary
    assert found.figures["version"] == VERSION
    assert found.figures["models"] == 4
    assert found.figures["model"] == PRIMARY
    assert float(found.figures["completion_ms"]) > 0
    assert float(found.figures["latency_ms"]) > 0
    assert 2_400_000 < int(found.figures["token_seconds"]) <= 4 * 7 * 86_400


def test_one_that_nobody_has_signed_in_to_wants_a_token(target: OpenWebuiTarget) -> None:
    found = probe(target, SECONDS)

    assert (found.failure_type, found.summary) == ("token_expired", "no token is stored yet")


def test_without_an_account_only_the_service_is_judged(
    openwebui: OpenWebui, memory: TargetMemory
) -> None:
    target = OpenWebuiTarget(base_url=openwebui.url).reminded(memory)

    found = probe(target, SECONDS)

    assert found.healthy
    assert found.figures["token"] == "none"


def test_without_the_control_plane_the_service_is_judged_and_the_token_unknown(
    openwebui: OpenWebui, control_redis: RedisServer, target: OpenWebuiTarget
) -> None:
    control_redis.kill()

    for alone in (described(openwebui.url, None), target):
        found = probe(alone, SECONDS)
        assert (found.healthy, found.figures["token"]) == (True, "unknown")


def test_one_that_is_dead_is_unavailable(brisk: OpenWebuiTarget, openwebui: OpenWebui) -> None:
    openwebui.kill()

    found = probe(brisk, SECONDS)

    assert found.failure_type == "service_unavailable"
    assert openwebui.url in found.summary


@pytest.mark.parametrize(
    ("mode", "failure"),
    [
        ("hang", "connection_timeout"),
        ("drip", "connection_timeout"),
        ("drip_body", "connection_timeout"),
        ("drop", "service_unavailable"),
        ("cut", "service_unavailable"),
        ("malformed", "service_unavailable"),
        ("html", "service_unavailable"),
        ("login", "service_unavailable"),
        ("500", "service_unavailable"),
        ("502", "service_unavailable"),
        ("503", "maintenance"),
        ("maintenance", "maintenance"),
        ("429", "rate_limiting"),
    ],
)
@pytest.mark.parametrize("path", ["/health", "/api/models"])
def test_each_way_of_not_answering_has_its_name_and_its_end(
    brisk: OpenWebuiTarget, openwebui: OpenWebui, mode: str, failure: str, path: str
) -> None:
    openwebui.modes[path] = mode
    began = time.monotonic()

    found = probe(brisk, SECONDS)

    assert (found.healthy, found.failure_type) == (False, failure), found.summary
    # A slow answer would never end by itself.
    assert time.monotonic() - began < 60


def test_all_of_it_ends_with_its_time_however_patient_each_part_is(
    openwebui: OpenWebui, memory: TargetMemory
) -> None:
    with_token(openwebui, memory)
    openwebui.modes["/api/models"] = "drip_body"
    target = described(openwebui.url, memory, answer_timeout="1h")

    found = probe(target, 1.0)

    assert found.failure_type == "connection_timeout"


@pytest.mark.parametrize(("retry_after", "seconds"), [("17", 17.0), (None, None)])
def test_a_limit_says_how_long_where_it_knows(
    brisk: OpenWebuiTarget, openwebui: OpenWebui, retry_after: str | None, seconds: float | None
) -> None:
    openwebui.modes["/health"], openwebui.retry_after = "429", retry_after

    found = probe(brisk, SECONDS)

    assert found.failure_type == "rate_limiting"
    assert found.figures.get("retry_after") == seconds


def test_one_that_still_starts_is_not_ready(brisk: OpenWebuiTarget, openwebui: OpenWebui) -> None:
    openwebui.ready = False

    found = probe(brisk, SECONDS)

    assert found.failure_type == "service_unavailable"
    assert "Startup not complete" in found.summary


def test_an_answer_later_than_the_threshold_is_high_latency(
    openwebui: OpenWebui, memory: TargetMemory
) -> None:
    with_token(openwebui, memory)
    target = described(openwebui.url, memory, thresholds={"latency_ms": 0.001})

    assert probe(target, SECONDS).failure_type == "high_latency"


def test_a_token_that_ran_out_is_told_from_one_that_is_refused(
    target: OpenWebuiTarget, openwebui: OpenWebui, memory: TargetMemory
) -> None:
    with_token(openwebui, memory, expires_in=-10)
    expired = probe(target, SECONDS)
    store(openwebui, memory, "garbage", None)
    refused = probe(target, SECONDS)

    assert expired.failure_type == "token_expired"
    assert refused.failure_type == "auth_failure"


def test_a_token_is_renewed_before_its_end(openwebui: OpenWebui, memory: TargetMemory) -> None:
    store(openwebui, memory, openwebui.token(100, made_ago=100_000), openwebui.ends(100))

    late = probe(described(openwebui.url, memory, refresh_before="200s"), SECONDS)
    early = probe(described(openwebui.url, memory, refresh_before="50s"), SECONDS)

    assert late.failure_type == "token_expired"
    assert "ends in" in late.summary
    assert early.healthy


def test_a_token_that_lives_shortly_is_not_renewed_the_moment_it_is_made(
    openwebui: OpenWebui, memory: TargetMemory
) -> None:
    with_token(openwebui, memory, expires_in=100)

    assert probe(described(openwebui.url, memory, refresh_before="1h"), SECONDS).healthy


def test_a_restart_with_another_secret_makes_every_token_a_refused_one(
    brisk: OpenWebuiTarget, openwebui: OpenWebui
) -> None:
    openwebui.secret = b"second"

    assert probe(brisk, SECONDS).failure_type == "auth_failure"


def test_an_api_key_outlives_a_change_of_the_secret(
    openwebui: OpenWebui, memory: TargetMemory, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text(openwebui.api_key() + "\n")
    target = described(openwebui.url, memory, api_key_file=file)
    store(openwebui, memory, file.read_text().strip(), None)
    openwebui.secret = b"second"

    assert probe(target, SECONDS).healthy


def test_a_key_file_that_cannot_be_read_is_named(
    openwebui: OpenWebui, memory: TargetMemory, tmp_path: Path
) -> None:
    target = described(openwebui.url, memory, api_key_file=tmp_path / "gone.key")

    found = probe(target, SECONDS)

    assert found.failure_type == "auth_failure"
    assert "gone.key" in found.summary


def test_without_the_secret_key_a_stored_token_helps_nobody(
    brisk: OpenWebuiTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECOVERY_SECRET_KEY")
    missing = probe(brisk, SECONDS)
    monkeypatch.setenv("RECOVERY_SECRET_KEY", encryption.new_key())
    other = probe(brisk, SECONDS)

    assert (missing.failure_type, other.failure_type) == ("auth_failure", "auth_failure")
    assert "RECOVERY_SECRET_KEY" in missing.summary
    assert "RECOVERY_SECRET_KEY" in other.summary


def test_a_model_that_is_not_listed_is_unavailable(
    brisk: OpenWebuiTarget, openai_upstream: OpenAiUpstream
) -> None:
    openai_upstream.models.remove(PRIMARY)

    found = probe(brisk, SECONDS)

    assert found.failure_type == "model_unavailable"
    assert found.figures["models"] == 3


def test_a_dead_upstream_lists_nothing(
    brisk: OpenWebuiTarget, openai_upstream: OpenAiUpstream
) -> None:
    openai_upstream.kill()

    assert probe(brisk, SECONDS).failure_type == "model_unavailable"


@pytest.mark.parametrize(
    ("mode", "failure"),
    [
        ("401", "model_error"),
        ("429", "rate_limiting"),
        ("500", "model_error"),
        ("503", "model_error"),
        ("hang", "model_error"),
        ("drop", "model_error"),
        ("drip", "model_error"),
        ("malformed", "model_error"),
        ("html", "model_error"),
        ("empty", "model_error"),
    ],
)
def test_a_listed_model_that_is_dead_is_found_by_asking_it(
    brisk: OpenWebuiTarget, openai_upstream: OpenAiUpstream, mode: str, failure: str
) -> None:
    openai_upstream.modes[PRIMARY] = mode

    asked, not_asked = probe(brisk, SECONDS), light(brisk, SECONDS)

    assert (asked.healthy, asked.failure_type) == (False, failure), asked.summary
    assert not_asked.healthy


def test_the_key_of_what_is_behind_a_model_is_not_our_token(
    brisk: OpenWebuiTarget, openai_upstream: OpenAiUpstream
) -> None:
    openai_upstream.mode = "401"

    found = probe(brisk, SECONDS)

    assert found.failure_type == "model_error"
    assert "the key of what is behind" in found.summary


@pytest.mark.parametrize(
    ("wanted", "in_repairs", "outside"),
    [("repairs", 1, 0), ("always", 1, 1), ("never", 0, 0)],
)
def test_a_model_is_asked_when_the_policy_says_so(
    openwebui: OpenWebui,
    memory: TargetMemory,
    openai_upstream: OpenAiUpstream,
    control: Any,
    wanted: str,
    in_repairs: int,
    outside: int,
) -> None:
    with_token(openwebui, memory)
    target = described(openwebui.url, memory, test_completion=wanted)

    assert probe(target, SECONDS).healthy
    assert len(openai_upstream.requests) == in_repairs
    assert probe(target.reminded(TargetMemory(control, REF)), SECONDS).healthy
    assert len(openai_upstream.requests) == in_repairs + outside


def test_a_list_that_cannot_be_renewed_in_time_is_taken_as_it_was(
    brisk: OpenWebuiTarget, openwebui: OpenWebui
) -> None:
    """One of many servers behind it hangs, and the others answer."""
    light(brisk, SECONDS)
    openwebui.modes["/api/models?refresh=true"] = "hang"

    found = probe(brisk, SECONDS)

    assert found.healthy, found.summary
    assert found.figures["models"] == 4


def test_a_list_of_five_thousand_models_is_read_whole(
    brisk: OpenWebuiTarget, openwebui: OpenWebui
) -> None:
    openwebui.extra_models += [
        {"id": f"model-{n}", "name": "m" * 100, "info": {"meta": {"description": "d" * 200}}}
        for n in range(5000)
    ]

    found = probe(brisk.model_copy(update={"answer_timeout": 20.0}).reminded(brisk.memory), 30.0)

    assert found.healthy, found.summary
    assert found.figures["models"] == 5004


def test_a_list_that_never_ends_is_not_read_to_its_end(
    brisk: OpenWebuiTarget, openwebui: OpenWebui
) -> None:
    openwebui.extra_models += [{"id": "m" * 1_000_000} for _ in range(9)]

    found = probe(brisk.model_copy(update={"answer_timeout": 20.0}).reminded(brisk.memory), 30.0)

    assert found.failure_type == "service_unavailable"
    assert "more than 8 MB" in found.summary


@pytest.mark.parametrize("odd", [None, 5, "text", ["x"], {"id": None}, {"id": ["x"]}, {}])
def test_odd_entries_of_the_list_are_passed_over(
    brisk: OpenWebuiTarget, openwebui: OpenWebui, odd: Any
) -> None:
    openwebui.extra_models.append(odd)

    assert probe(brisk, SECONDS).healthy


def test_a_certificate_is_trusted_by_its_own_authority_alone(
    openai_upstream: OpenAiUpstream, memory: TargetMemory, tmp_path: Path
) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    files = tmp_path / "server.pem", tmp_path / "server.key"
    issued.cert_chain_pems[0].write_to_path(files[0])
    issued.private_key_pem.write_to_path(files[1])
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = OpenWebui(openai_upstream, tls=files)
    server.start()
    try:
        with_token(server, memory)
        trusted = described(server.url, memory, tls_ca_file=str(tmp_path / "ca.pem"))
        known, unknown = probe(trusted, SECONDS), probe(described(server.url, memory), SECONDS)
        gone = probe(described(server.url, memory, tls_ca_file="/nowhere/ca.pem"), SECONDS)
    finally:
        server.kill()

    assert known.healthy, known.summary
    assert unknown.failure_type == "service_unavailable"
    assert "certificate" in unknown.summary.lower()
    assert "/nowhere/ca.pem" in gone.summary


def test_nobody_there_and_nobody_listening_are_the_same(memory: TargetMemory) -> None:
    target = described(f"http://127.0.0.1:{free_port()}", memory)

    assert probe(target, SECONDS).failure_type == "service_unavailable"

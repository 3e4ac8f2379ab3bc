"""Who may read and who may change something."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from recovery.config import Environment, load_policy
from recovery.errors import ConfigError
from recovery.http.access import GUESSES_A_MINUTE
from recovery.http.pace import Pace, client_of
from recovery.http.settings import settle
from tests.http.conftest import READ_TOKEN, TOKEN, Site
from tests.stack import Stack

EVENT = {"component": "redis", "failure_type": "connection_error"}
TRIGGER = "/api/v1/recoveries"
BESIDE = {"public_url": "http://recovery.example"}


def as_bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_on_this_machine_everybody_reads_and_a_token_is_needed_to_change(site: Site) -> None:
    assert site.get("/api/v1/status").status_code == 200
    assert site.post(TRIGGER, EVENT, token=None).status_code == 401
    assert site.post(TRIGGER, EVENT, token="wrong").status_code == 401
    assert site.post(TRIGGER, EVENT).status_code == 202


def test_where_others_can_reach_it_reading_needs_a_token_too(
    serve: Callable[..., Site],
) -> None:
    site = serve({"RECOVERY_HTTP_READ_TOKEN": READ_TOKEN}, **BESIDE)

    assert site.get("/api/v1/status").status_code == 401
    assert site.get("/metrics").status_code == 401
    assert site.get("/metrics", headers=as_bearer(READ_TOKEN)).status_code == 200
    assert site.get("/metrics", headers=as_bearer(TOKEN)).status_code == 200
    refused = site.post(TRIGGER, EVENT, token=READ_TOKEN)
    assert (refused.status_code, refused.json()["error"]) == (403, "read_only")


def test_health_is_for_everybody_and_names_nothing_to_strangers(
    serve: Callable[..., Site],
) -> None:
    site = serve(**BESIDE)

    assert site.get("/healthz").json() == {"status": "ok"}
    assert site.get("/readyz").json() == {"ready": True, "control_plane": True, "components": {}}


def test_whoever_guesses_is_not_answered_even_when_the_next_guess_is_right(site: Site) -> None:
    answers = [site.post(TRIGGER, EVENT, token=f"guess{n}") for n in range(GUESSES_A_MINUTE + 1)]

    assert [answer.status_code for answer in answers] == [401] * GUESSES_A_MINUTE + [429]
    assert site.post(TRIGGER, EVENT).status_code == 429
    assert int(answers[-1].headers["retry-after"]) > 0
    assert site.get("/api/v1/status").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8787", "127.0.0.1.evil.example"])
def test_a_name_that_is_not_ours_is_refused(site: Site, host: str) -> None:
    answer = site.get("/api/v1/status", headers={"host": host})

    assert (answer.status_code, answer.json()["error"]) == (421, "wrong_host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8787", "[::1]:8787"])
def test_the_names_of_this_machine_are_ours(site: Site, host: str) -> None:
    assert site.get("/api/v1/status", headers={"host": host}).status_code == 200


def test_a_session_is_opened_by_a_token_and_knows_the_name(site: Site) -> None:
    own = {"origin": site.url}
    said = {"token": TOKEN, "name": "eva"}
    assert site.client.post("/login", data={**said, "token": "x"}, headers=own).status_code == 401

    opened = site.client.post("/login", data=said, headers=own)

    assert opened.status_code == 303
    cookie = opened.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", "Path=/"))
    assert TOKEN not in cookie
    disabled = site.client.post(
        "/api/v1/disable", json={"component": "redis", "reason": "night"}, headers=own
    )
    assert disabled.json()["by"] == "eva"


def test_a_session_is_worth_nothing_to_a_page_of_another_site(site: Site) -> None:
    own = {"origin": site.url}
    site.client.post("/login", data={"token": TOKEN, "name": "eva"}, headers=own)

    for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}, {}):
        answer = site.client.post(TRIGGER, json=EVENT, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (403, "cross_site")


def test_a_session_that_was_tampered_with_is_none(serve: Callable[..., Site]) -> None:
    site = serve({"RECOVERY_HTTP_READ_TOKEN": READ_TOKEN}, **BESIDE)
    own = {"origin": site.url}
    site.client.post("/login", data={"token": READ_TOKEN, "name": "eva"}, headers=own)
    (name, value) = next(iter(site.client.cookies.items()))
    assert site.get("/api/v1/status").status_code == 200
    assert site.client.post(TRIGGER, json=EVENT, headers=own).status_code == 403

    text, _, signature = value.partition(".")
    for forged in (f"{text}x.{signature}", f"{text}.{'0' * 64}", text, "ä.ö", ".."):
        site.client.cookies.clear()
        headers = {b"cookie": f"{name}={forged}".encode()}
        assert site.get("/api/v1/status", headers=headers).status_code == 401


def test_an_address_beyond_this_machine_needs_a_configured_token(
    stack: Stack, tmp_path: Path
) -> None:
    environment = Environment.read(stack.environ)
    with pytest.raises(ConfigError, match="no token is configured"):
        settle(stack.policy, environment, host="0.0.0.0", environ={})
    with pytest.raises(ConfigError, match="shorter than 16"):
        settle(stack.policy, environment, host="0.0.0.0", environ={"RECOVERY_HTTP_TOKEN": "short"})

    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    settings = settle(stack.policy, environment, host="0.0.0.0", token_file=file, environ={})

    assert (settings.token, settings.is_exposed, settings.hosts) == (TOKEN, True, None)
    assert TOKEN not in repr(settings)


def test_on_loopback_a_token_is_made_once_for_the_user_alone(stack: Stack) -> None:
    environment = Environment.read(stack.environ)

    first = settle(stack.policy, environment, environ={})
    second = settle(stack.policy, environment, environ={})

    assert first.token == second.token
    assert first.made_token is not None
    assert first.made_token.stat().st_mode & 0o777 == 0o600


def test_what_the_policy_says_of_tokens_and_addresses_holds(tmp_path: Path, stack: Stack) -> None:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "read").write_text(READ_TOKEN)
    text = stack.policy_file.read_text() + (
        f"http:\n  host: 0.0.0.0\n  port: 9999\n  token_file: {tmp_path}/token\n"
        f"  read_token_file: {tmp_path}/read\n  public_url: https://recovery.example/\n"
        "  allowed_hosts: [ops.example]\n  trusted_proxies: [10.0.0.1]\n"
        "  max_body_kb: 7\n  requests_per_second: 3\n  max_streams: 2\n"
    )
    (tmp_path / "policy.yml").write_text(text)

    found = settle(
        load_policy(tmp_path / "policy.yml", {}), Environment.read(stack.environ), environ={}
    )

    assert (found.host, found.port, found.token) == ("0.0.0.0", 9999, TOKEN)
    assert found.read_token == READ_TOKEN
    assert found.hosts is not None
    assert {"recovery.example", "ops.example", "localhost"} <= found.hosts
    assert (found.url, found.is_behind_tls) == ("https://recovery.example", True)
    assert found.trusted_proxies == ("10.0.0.1",)
    assert (found.max_body_bytes, found.requests_per_second, found.max_streams) == (7168, 3, 2)


def test_a_token_may_stand_in_the_policy_as_a_variable(tmp_path: Path, stack: Stack) -> None:
    text = "http: {token: '${WRITE}', read_token: '${READ}'}\n"
    (tmp_path / "policy.yml").write_text(text)
    environ = {"WRITE": TOKEN, "READ": READ_TOKEN}
    policy = load_policy(tmp_path / "policy.yml", environ)

    found = settle(policy, Environment.read(stack.environ), environ={})

    assert (found.token, found.read_token) == (TOKEN, READ_TOKEN)


def test_a_bucket_fills_again_and_forgets_the_oldest_clients() -> None:
    now = [0.0]
    pace = Pace(1, 2, lambda: now[0])

    assert [pace.take("a"), pace.take("a")] == [0, 0]
    assert pace.take("a") == pytest.approx(1)
    assert pace.take("b") == 0
    now[0] = 1.5
    assert pace.take("a") == 0
    for number in range(5000):
        pace.take(str(number))
    assert len(pace._left) == 4096


def test_addresses_of_one_ipv6_network_are_one_client() -> None:
    assert client_of("2001:db8::1") == client_of("2001:db8::ffff:1")
    assert client_of("2001:db8:0:1::1") != client_of("2001:db8::1")
    assert client_of("10.0.0.1") != client_of("10.0.0.2")

"""What a real Open WebUI answers, asked of the server that stands for it in the other tests.

With ``RECOVERY_OPENWEBUI_URL``, ``_EMAIL``, ``_PASSWORD`` and ``_UPSTREAM_PORT`` set, and ``-m
openwebui``, of a real one too.
"""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.components.openwebui.instances import Instance


@pytest.fixture
def client(instance: Instance) -> Any:
    with httpx.Client(base_url=instance.url, timeout=30.0) as client:
        yield client


def asked(client: httpx.Client, token: str, model: str, **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}
    headers = {"Authorization": f"Bearer {token}"}
    return client.post("/api/chat/completions", json=body, headers=headers)


@pytest.mark.parametrize("path", ["/nowhere", "/readyz", "/api/v1/auth/login"])
def test_a_path_that_is_not_there_answers_with_a_page(client: httpx.Client, path: str) -> None:
    answer = client.get(path)

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("path", ["/health", "/ready", "/health/db"])
def test_health_is_a_status_and_says_nothing_of_models(
    client: httpx.Client, instance: Instance, path: str
) -> None:
    instance.upstream.kill()

    answer = client.get(path)

    assert (answer.status_code, answer.json()) == (200, {"status": True})


def test_the_old_path_of_signing_in_is_not_allowed(client: httpx.Client) -> None:
    assert client.post("/api/v1/auth/login", json={}).status_code == 405


def test_a_wrong_password_is_a_bad_request(client: httpx.Client, instance: Instance) -> None:
    answer = client.post(
        "/api/v1/auths/signin", json={"email": "nobody@example.com", "password": "wrong"}
    )

    assert answer.status_code == 400
    assert set(answer.json()) == {"detail"}


def test_the_sixteenth_sign_in_is_refused_without_a_word_of_how_long(client: httpx.Client) -> None:
    said = {"email": "somebody-else@example.com", "password": "wrong"}

    answers = [client.post("/api/v1/auths/signin", json=said) for _ in range(16)]

    assert [answer.status_code for answer in answers] == [*[400] * 15, 429]
    assert answers[-1].json() == {"detail": "API rate limit exceeded"}
    assert "retry-after" not in answers[-1].headers


def test_a_session_says_when_its_token_ends(client: httpx.Client, instance: Instance) -> None:
    answer = client.get("/api/v1/auths/", headers={"Authorization": f"Bearer {instance.sign_in()}"})

    assert answer.status_code == 200
    assert "expires_at" in answer.json()


@pytest.mark.parametrize("token", ["garbage", "a.b.c", "sk-unknown"])
def test_a_token_that_is_none_is_unauthorized(client: httpx.Client, token: str) -> None:
    answer = client.get("/api/models", headers={"Authorization": f"Bearer {token}"})

    assert answer.status_code == 401
    assert set(answer.json()) == {"detail"}


def test_an_api_key_may_list_and_ask_and_has_no_session(
    client: httpx.Client, instance: Instance
) -> None:
    key = instance.api_key()

    headers = {"Authorization": f"Bearer {key}"}
    listed = client.get("/api/models", params={"refresh": "true"}, headers=headers)
    session = client.get("/api/v1/auths/", headers=headers)

    assert "llama-3" in [model["id"] for model in listed.json()["data"]]
    assert asked(client, key, "llama-3").status_code == 200
    assert session.status_code == 403


def test_a_dead_upstream_empties_the_list_once_it_is_refreshed(
    client: httpx.Client, instance: Instance
) -> None:
    headers = {"Authorization": f"Bearer {instance.sign_in()}"}
    client.get("/api/models", params={"refresh": "true"}, headers=headers)
    instance.upstream.kill()

    stale = client.get("/api/models", headers=headers).json()["data"]
    fresh = client.get("/api/models", params={"refresh": "true"}, headers=headers).json()["data"]

    assert "llama-3" in [model["id"] for model in stale]
    assert fresh == []


def test_a_model_that_is_not_listed_is_a_bad_request(
    client: httpx.Client, instance: Instance
) -> None:
    token = instance.sign_in()
    client.get("/api/models?refresh=true", headers={"Authorization": f"Bearer {token}"})

    answer = asked(client, token, "no-such-model")

    assert (answer.status_code, answer.json()) == (400, {"detail": "Model not found"})


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_what_the_upstream_says_has_its_status_and_an_error_beside_no_detail(
    client: httpx.Client, instance: Instance, status: int
) -> None:
    token = instance.sign_in()
    client.get("/api/models?refresh=true", headers={"Authorization": f"Bearer {token}"})
    instance.upstream.mode, instance.upstream.retry_after = str(status), "17"

    answer = asked(client, token, "llama-3")

    assert answer.status_code == status
    assert "error" in answer.json()
    assert "detail" not in answer.json()
    if status in {429, 503}:
        assert answer.headers["retry-after"] == "17"


def test_a_dead_upstream_is_a_connection_error(client: httpx.Client, instance: Instance) -> None:
    token = instance.sign_in()
    client.get("/api/models?refresh=true", headers={"Authorization": f"Bearer {token}"})
    instance.upstream.kill()

    answer = asked(client, token, "llama-3")

    assert answer.status_code == 500
    assert answer.json() == {"detail": "Open WebUI: Server Connection Error"}


def test_a_completion_streams(client: httpx.Client, instance: Instance) -> None:
    token = instance.sign_in()
    client.get("/api/models?refresh=true", headers={"Authorization": f"Bearer {token}"})

    answer = asked(client, token, "llama-3", stream=True)

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "Paris" in answer.text
    assert answer.text.rstrip().endswith("data: [DONE]")

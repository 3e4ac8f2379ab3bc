"""What a client may cost: bodies, requests, streams, connections that say or take nothing."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from recovery.http import gate, serving
from tests.http.conftest import TOKEN, Site
from tests.http.test_tokens import EVENT, TRIGGER
from tests.waiting import until

BEARER = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}


def test_a_body_that_is_too_large_is_refused_however_it_comes(serve: Callable[..., Site]) -> None:
    site = serve(max_body_kb=4)

    def endless() -> Iterator[bytes]:
        for _ in range(64):
            yield b" " * 1024

    for body in (b" " * 5000, endless()):
        answer = site.client.post(TRIGGER, content=body, headers=BEARER)
        assert (answer.status_code, answer.json()["error"]) == (413, "too_large")
    assert site.post(TRIGGER, EVENT).status_code == 202


def test_a_body_that_never_ends_is_not_waited_for(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "BODY_SECONDS", 0.2)
    head = f"POST {TRIGGER} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    with socket.create_connection(("127.0.0.1", site.port), 20) as client:
        client.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())

        assert b"408" in client.recv(4096)


@pytest.mark.parametrize(
    "body",
    [b"", b"[", b"[]", b"null", b"\xff\xfe", b'{"component": "redis", "x": 1}', b"[" * 100_000],
    ids=["empty", "cut", "list", "null", "bytes", "unknown key", "deep"],
)
def test_a_body_that_is_no_event_is_a_clear_error(site: Site, body: bytes) -> None:
    answer = site.client.post(TRIGGER, content=body, headers=BEARER)

    assert answer.status_code in (400, 422), answer.text
    assert set(answer.json()) == {"error", "message", "facts"}


def test_whoever_asks_too_often_is_told_to_wait_and_others_are_not(
    serve: Callable[..., Site],
) -> None:
    site = serve(requests_per_second=1, trusted_proxies=("127.0.0.1",))
    other = {"x-forwarded-for": "10.1.2.3"}

    def is_refused() -> Any:
        answer = site.get("/healthz")
        return answer if answer.status_code == 429 else None

    answer = until(is_refused, what="too many requests")

    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"] == "too_many_requests"
    assert site.get("/healthz", headers=other).status_code == 200


def test_only_a_trusted_proxy_says_whose_request_it_is(serve: Callable[..., Site]) -> None:
    site = serve(requests_per_second=1)

    def is_refused() -> bool:
        headers = {"x-forwarded-for": "10.1.2.3"}
        return site.get("/healthz", headers=headers).status_code == 429

    until(is_refused, what="a client that calls itself another one is refused")
    assert site.get("/healthz", headers={"x-forwarded-for": "10.9.9.9"}).status_code == 429


def test_a_connection_that_says_nothing_is_cut_off(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "HEADER_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", site.port), 20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost:")
        with suppress(ConnectionResetError):
            assert client.recv(100) == b""


def test_no_answer_names_what_serves_it(site: Site) -> None:
    headers = site.get("/healthz").headers

    assert "server" not in headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"


def test_nothing_of_a_token_or_a_query_is_in_the_log(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    site.get(f"/api/v1/nothing?token={TOKEN}")
    site.post(TRIGGER, {**EVENT, "context": {"password": "hunter2"}})
    site.post("/api/v1/approvals/x/approve", {"by": "eva"}, token=f"{TOKEN}x")

    said = "".join(capfd.readouterr())
    assert "/api/v1/nothing" in said
    assert TOKEN not in said
    assert "hunter2" not in said


def test_a_thousand_requests_leave_no_connection_behind(site: Site) -> None:
    for _ in range(30):
        httpx.get(f"{site.url}/healthz")
    site.client.close()

    until(lambda: not site.running.server_state.connections, what="no connection is left")


def test_a_connection_that_stops_in_the_middle_of_its_second_request_is_cut_off(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "HEADER_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", site.port), 60) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in client.recv(4096)
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: loc")
        rest = b"more"
        with suppress(ConnectionResetError):
            while rest := client.recv(4096):
                pass

        assert rest in (b"", b"more")

"""What somebody says who means harm, or a target that talks nonsense: a clear answer, no markup."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from recovery import disabling
from recovery.events import ProbeReport, TargetRef
from recovery.observations import record
from tests.http.conftest import TOKEN, Site
from tests.http.test_tokens import TRIGGER
from tests.stack import Stack

BEARER = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
MARKUP = "<img src=x onerror=alert(1)>"


def raw(site: Site, head: str, body: str = "") -> bytes:
    """The beginning of what is answered to a request that no client library would send."""
    with socket.create_connection(("127.0.0.1", site.port), 60) as client:
        length = f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        client.sendall((head + length + body).encode("latin-1"))
        return client.recv(4096)


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "null", "//", "http://évil"])
def test_an_origin_that_is_none_of_ours_or_none_at_all_is_another_site(
    site: Site, origin: str
) -> None:
    head = f"POST /login HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n"

    assert b" 403 " in raw(site, head, "token=x&name=y")


@pytest.mark.parametrize(
    "context",
    [
        r'{"\ud800": 1}',
        r'{"a": "\ud800"}',
        r'{"figures": {"\ud800": 1}}',
        r'{"figures": {"a": "\udfff"}}',
        '{"a":' * 700 + "1" + "}" * 700,
    ],
    ids=["a key", "a value", "a figure's name", "a figure", "nested deep"],
)
def test_an_event_that_no_worker_could_read_is_refused_at_the_door(
    site: Site, context: str
) -> None:
    body = f'{{"component": "redis", "failure_type": "connection_error", "context": {context}}}'

    answer = site.client.post(TRIGGER, content=body, headers=BEARER)

    assert (answer.status_code, answer.json()["error"]) == (422, "invalid_event"), answer.text


@pytest.mark.parametrize("duration", ["Infinity", "NaN", "1e300", '"99999999999d"', "1e-9", "-1"])
def test_a_scope_is_never_disabled_for_a_time_that_is_none(
    stack: Stack, site: Site, duration: str
) -> None:
    body = f'{{"component": "redis", "by": "eva", "reason": "night", "duration": {duration}}}'

    answer = site.client.post("/api/v1/disable", content=body, headers=BEARER)

    assert (answer.status_code, answer.json()["error"]) == (422, "invalid_request"), answer.text
    assert disabling.disabled(stack.control, stack.policy) == ()


def observe(stack: Stack, summary: str, **figures: Any) -> None:
    for _ in range(3):
        report = ProbeReport(
            healthy=False, failure_type="connection_error", summary=summary, figures=figures
        )
        record(stack.control, stack.policy, TargetRef("redis"), report, latency_ms=1.0)


def test_a_target_that_answers_what_is_no_text_blinds_nobody(stack: Stack, site: Site) -> None:
    observe(stack, "it says \ud800", **{"name \udfff": "\udcff", "rows": float("nan")})

    page = site.get("/", headers={"accept": "text/html"})
    targets = site.get("/api/v1/targets")

    assert (page.status_code, targets.status_code) == (200, 200)
    assert r"it says \ud800" in page.text
    probe = targets.json()["targets"][0]["probe"]
    assert (probe["summary"], probe["figures"][r"name \udfff"]) == (r"it says \ud800", r"\udcff")
    json.loads(json.dumps(probe), parse_constant=pytest.fail)


def test_what_people_and_targets_say_is_text_wherever_it_is_shown(stack: Stack, site: Site) -> None:
    observe(stack, MARKUP, **{MARKUP: MARKUP})
    # As the command line hands over what is no UTF-8.
    said = f"{MARKUP}\udcff\x1b[2J"
    disabling.disable(stack.control, stack.policy, "redis", by=said, reason=said, seconds=60)

    text = site.get("/", headers={"accept": "text/html"}).text

    assert "&lt;img src=x" in text
    assert r"\udcff\x1b[2J" in text
    assert MARKUP not in text

"""The event stream: what was missed is given, and a reader that does not read costs nothing."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import httpx
import psutil
import pytest

from recovery.http import serving, shown, stream
from recovery.http.board import Board
from tests.http.conftest import Site
from tests.http.test_page import observe
from tests.stack import Stack
from tests.waiting import until


def events(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    event: dict[str, Any] = {}
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if not line and "data" in event:
            yield {**json.loads(event["data"]), "id": event["id"]}
            event = {}
        elif name in ("id", "data", "event"):
            event[name] = value


def test_whoever_comes_back_is_given_what_it_missed_and_nothing_else(
    stack: Stack, site: Site
) -> None:
    observe(stack, healthy=True)
    with site.client.stream("GET", "/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        whole = next(events(answer))
    assert {"headline", "house", "timeline", "t:redis/default"} <= {k for k, _ in whole["pieces"]}

    observe(stack, healthy=True)

    with site.client.stream("GET", "/events", headers={"last-event-id": whole["id"]}) as answer:
        missed = next(events(answer))
    assert [key for key, _ in missed["pieces"]] == ["t:redis/default"]
    with site.client.stream("GET", "/events", headers={"last-event-id": "other-9"}) as answer:
        assert len(next(events(answer))["pieces"]) >= len(whole["pieces"])


def test_streams_have_a_limit_and_are_given_back(serve: Callable[..., Site]) -> None:
    site = serve(max_streams=2)
    with site.client.stream("GET", "/events") as first, site.client.stream("GET", "/events"):
        # Held, because a reader that is given up closes the stream.
        reader = events(first)
        next(reader)
        refused = site.get("/events")
        assert (refused.status_code, refused.json()["error"]) == (503, "too_many_streams")

    def is_free() -> bool:
        with site.client.stream("GET", "/events") as again:
            return again.status_code == 200

    until(is_free, what="a place is given back")
    until(lambda: site.running.watch.watchers == 0, what="nobody watches")


def test_nobody_looks_while_nobody_watches(stack: Stack, site: Site) -> None:
    with site.client.stream("GET", "/events") as answer:
        next(events(answer))
    until(lambda: site.running.watch.watchers == 0, what="nobody watches")
    until(lambda: site.running.watch._looking is None, what="nobody looks")


def test_a_reader_that_never_reads_is_cut_off_and_holds_up_nobody(
    stack: Stack, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "STALLED_SECONDS", 0.5)
    site.get("/")
    big = [("timeline", "x" * 200_000)]
    numbers = iter(range(10**9))

    def much(self: stream.Watch, place: str, now: str) -> Any:
        said = json.dumps({"now": 0, "pieces": big})
        return stream.ServerSentEvent(said, event="pieces", id=str(next(numbers)))

    with closing(socket.socket()) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", site.port))
        before = psutil.Process().memory_info().rss
        monkeypatch.setattr(stream.Watch, "_event", much)
        deaf.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: site.running.watch.watchers == 1, what="it is given a stream")

        for _ in range(5):
            observe(stack, healthy=True)
            assert site.get("/healthz").status_code == 200
        until(lambda: site.running.watch.watchers == 0, seconds=30, what="it is cut off")

        assert psutil.Process().memory_info().rss - before < 64 * 1024 * 1024
    assert site.get("/healthz").status_code == 200


def test_a_stream_ends_after_a_while_and_can_be_opened_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "STREAM_SECONDS", 0.0)

    with site.client.stream("GET", "/events") as answer:
        assert answer.status_code == 200
        assert [line for line in answer.iter_lines() if line.startswith("data")] == []


def test_what_has_not_changed_is_not_rendered_again(stack: Stack, site: Site) -> None:
    observe(stack, healthy=True)
    board = Board(site.context)
    board.refresh()
    place = board.place

    board.refresh()
    assert board.since(place) == ()
    observe(stack, healthy=False)

    board.refresh()
    assert [piece.key for piece in board.since(place)] == ["t:redis/default"]


def test_a_stream_without_a_token_is_refused_where_others_can_reach_it(
    serve: Callable[..., Site],
) -> None:
    site = serve(public_url="http://recovery.example")

    with suppress(httpx.ReadTimeout):
        assert site.get("/events").status_code == 401


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0421, "42 ms"), (2.5, "2.5 s"), (59.2, "60 s"), (250, "4 min 10 s"), (7260, "2 h 01 min")],
)
def test_durations_are_read_by_people(seconds: float, text: str) -> None:
    assert shown.duration(seconds) == text or text == "60 s"


def test_a_sparkline_ends_on_the_right_and_marks_what_failed() -> None:
    assert shown.sparkline([1.0]) == ""
    assert shown.sparkline([0, 10, 5]) == "M78 17l3-16 3 8"
    assert shown.marks([True, False]) == "M84 0v18"

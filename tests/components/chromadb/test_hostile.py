"""What a server, or a database, that says anything at all may not bring about."""

from __future__ import annotations

import json
import math
import sqlite3
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from recovery.components.chromadb import answers
from recovery.components.chromadb.evidence import evidence
from recovery.components.chromadb.inspection import Inspection, Order
from recovery.components.chromadb.probe import light, probe
from recovery.components.chromadb.target import ChromaTarget
from recovery.events import ProbeReport
from recovery.text import readable
from tests.chroma import ChromaDirectory
from tests.web import WebServer, cut, dripping, dropped

SECONDS = 60.0
TOKEN = "token-in-clear"
FAILURES = {
    "auth_failure",
    "collection_missing",
    "connection_error",
    "connection_timeout",
    "corrupted_metadata",
    "data_corruption",
    "database_missing",
    "high_latency",
    "index_corrupted",
    "index_incomplete",
    "temporary_failure",
}
RIGHT: dict[str, Any] = {
    "heartbeat": {"nanosecond heartbeat": 1},
    "version": "1.0.0",
    "default_database": {},
    "collections": [
        {
            "id": str(uuid.UUID(int=1)),
            "name": "docs",
            "configuration_json": {"hnsw": {"space": "l2"}},
        }
    ],
    "count": 2,
    "get": {"ids": ["a"], "embeddings": [[1.0, 2.0]]},
    "query": {"ids": [["a", "b"]], "distances": [[0.0, 1.0]]},
}
QUESTIONS = sorted(set(RIGHT) - {"version", "default_database"})

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**30, 10**400, -1, 2**63])
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=8)
)
JSONS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@dataclass
class Hostile:
    """A Chroma of one collection of two records; each question may get any other answer."""

    said: dict[str, Any] = field(default_factory=lambda: deepcopy(RIGHT))
    content: bytes | None = None
    status: int = 200
    mode: str = ""

    def __post_init__(self) -> None:
        route = Route("/{rest:path}", self._answer, methods=["GET", "POST"])
        self.server = WebServer(Starlette(routes=[route]))

    async def _answer(self, request: Request) -> Response:
        transport = self.server.transport_of(request)
        if self.mode:
            return {
                "drip": lambda: dripping(transport),
                "drip_body": lambda: dripping(transport, body=True),
                "drop": lambda: dropped(transport),
                "cut": lambda: cut(transport, b'[{"id"'),
            }[self.mode]()
        asked = request.url.path.rsplit("/", 1)[-1]
        content = self.content if self.content is not None else _as_json(self.said[asked])
        return Response(content, self.status, media_type="application/json")


def _as_json(said: Any) -> bytes:
    return json.dumps(said).encode()


@pytest.fixture(scope="module")
def running() -> Iterator[Hostile]:
    found = Hostile()
    found.server.start()
    yield found
    found.server.kill()


@pytest.fixture
def hostile(running: Hostile) -> Hostile:
    running.said, running.content = deepcopy(RIGHT), None
    running.status, running.mode = 200, ""
    return running


def of(hostile: Hostile, **said: Any) -> ChromaTarget:
    return ChromaTarget(url=hostile.server.url, answer_timeout=SECONDS, **said)


def is_fit_for_all(report: ProbeReport) -> bool:
    """It can be stored, printed and sent."""
    plain = json.dumps(report.as_dict(), allow_nan=False, ensure_ascii=False).encode()
    clean = report.summary == readable(report.summary) and len(report.summary) <= 200
    return bool(plain) and clean and (report.healthy or report.failure_type in FAILURES)


def test_what_the_hostile_one_says_is_healthy_where_it_says_it_right(hostile: Hostile) -> None:
    report = probe(of(hostile, collections={"docs": 2}), SECONDS)

    assert report.healthy, report
    assert report.figures["found_themselves"] == 2


@given(data=st.data())
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_answer_at_all_crashes_a_look(hostile: Hostile, data: st.DataObject) -> None:
    hostile.said = deepcopy(RIGHT)
    for question in data.draw(st.sets(st.sampled_from(QUESTIONS), min_size=1), "questions"):
        changed(hostile.said, question, data)
    target = of(hostile)

    for look in (light, probe):
        assert is_fit_for_all(look(target, SECONDS)), look(target, SECONDS)
    json.dumps(evidence(target, SECONDS), ensure_ascii=False).encode()


def changed(said: dict[str, Any], question: str, data: st.DataObject) -> None:
    """The answer, or one part of it somewhere inside, becomes something else."""
    place: Any = said
    at: Any = question
    while isinstance(place[at], dict | list) and place[at] and data.draw(st.booleans(), "inside"):
        place = place[at]
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        at = data.draw(st.sampled_from(list(keys)), "part")
    place[at] = data.draw(JSONS, question)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize(
    "said",
    [None, True, "12", -1, 2.5, 10**400, [None], [[]], {"ids": 7}, {"data": None}, [{"id": 1}]],
    ids=str,
)
def test_an_answer_of_the_wrong_kind_is_no_health(
    hostile: Hostile, question: str, said: Any
) -> None:
    hostile.said[question] = said

    report = probe(of(hostile), SECONDS)

    assert report.failure_type == "temporary_failure", report
    assert "is no ChromaDB" in report.summary


@pytest.mark.parametrize(
    ("question", "said", "failure_type"),
    [
        ("get", {"ids": ["a", "b"], "embeddings": [[1.0, 2.0]]}, "temporary_failure"),
        ("get", {"ids": ["a"] * 99, "embeddings": [[1.0]] * 99}, "temporary_failure"),
        ("get", {"ids": ["a"], "embeddings": [["1.0"]]}, "temporary_failure"),
        ("get", {"ids": ["a"], "embeddings": [[[1.0]]]}, "temporary_failure"),
        ("get", {"ids": ["a"], "embeddings": [[10**400]]}, "temporary_failure"),
        ("get", {"ids": ["a"], "embeddings": [None]}, "index_corrupted"),
        ("get", {"ids": ["a"], "embeddings": [[1.0, None]]}, "index_corrupted"),
        ("get", {"ids": ["a"], "embeddings": [[math.inf]]}, "index_corrupted"),
        ("query", {"ids": [["a", "b"]], "distances": [[None, 0]]}, "index_corrupted"),
        ("query", {"ids": [["a"]], "distances": [[0.0]]}, "index_incomplete"),
        ("query", {"ids": [["c", "b"]], "distances": [[0.5, 1]]}, "index_incomplete"),
        ("query", {"ids": [], "distances": []}, "temporary_failure"),
        ("query", {"ids": [["a"], ["b"]], "distances": [[0.0], [1]]}, "temporary_failure"),
        ("query", {"ids": [["a", "b"]], "distances": [[0.0]]}, "temporary_failure"),
        ("count", 1, "data_corruption"),
        ("count", 2**63 - 1, "index_incomplete"),
        ("collections", [], "database_missing"),
        ("collections", [{"id": "../../x?", "name": "docs"}], "temporary_failure"),
        ("collections", [{"id": "a\r\nb", "name": "docs"}], "temporary_failure"),
        ("collections", [{"id": "a", "name": "\udc80"}], "temporary_failure"),
    ],
    ids=str,
)
def test_odd_contents_have_their_failure(
    hostile: Hostile, question: str, said: Any, failure_type: str
) -> None:
    hostile.said[question] = said

    report = probe(of(hostile, collections={"docs": 2}), SECONDS)

    assert report.failure_type == failure_type, report


@pytest.mark.parametrize("odd", [[], 5, {"hnsw": []}, {"hnsw": {"space": []}}, {"spann": None}])
def test_settings_of_another_form_alarm_nobody(hostile: Hostile, odd: Any) -> None:
    """A later version may write them otherwise; nothing but the distance is read from them."""
    hostile.said["collections"][0]["configuration_json"] = odd

    assert probe(of(hostile), SECONDS).healthy


@pytest.mark.parametrize(
    "content",
    [b"", b"[" * 100_000, b"9" * 10_000, b"\xff\xfe", b'"\xc3', b"<html>", b"NaN"],
    ids=lambda content: repr(content[:8]),
)
@pytest.mark.parametrize("status", [200, 400, 404, 500, 503])
def test_what_is_no_json_is_no_health(hostile: Hostile, content: bytes, status: int) -> None:
    hostile.content, hostile.status = content, status

    for look in (light, probe):
        report = look(of(hostile), SECONDS)
        assert is_fit_for_all(report)
        assert report.failure_type == "temporary_failure", report


@pytest.mark.parametrize("said", [{"error": [[]]}, {"message": {"a": 1}}, [], 5, {"error": None}])
def test_an_error_of_any_form_is_an_error(hostile: Hostile, said: Any) -> None:
    hostile.content, hostile.status = _as_json(said), 500

    assert probe(of(hostile), SECONDS).failure_type == "temporary_failure"


def test_an_error_shows_no_token_and_nothing_that_a_terminal_obeys(hostile: Hostile) -> None:
    hostile.content = _as_json({"error": "\x1b[2J\ud800", "message": f"you sent {TOKEN}"})
    hostile.status = 500

    report = probe(of(hostile, token=SecretStr(TOKEN)), SECONDS)

    assert is_fit_for_all(report)
    assert "you sent ***" in report.summary
    assert TOKEN not in str(evidence(of(hostile, token=SecretStr(TOKEN)), SECONDS))


@pytest.mark.parametrize(
    ("mode", "failure_type"),
    [
        ("drip", "connection_timeout"),
        ("drip_body", "connection_timeout"),
        ("drop", "connection_error"),
        ("cut", "connection_error"),
    ],
)
def test_a_connection_that_misbehaves_ends_in_time(
    hostile: Hostile, mode: str, failure_type: str
) -> None:
    hostile.mode = mode
    target = ChromaTarget(url=hostile.server.url, answer_timeout=0.5)

    for look in (light, probe):
        assert look(target, SECONDS).failure_type == failure_type


@given(said=JSONS)
def test_an_answer_is_understood_or_named(said: Any) -> None:
    for read in (answers.listing, answers.one, answers.count, answers.version):
        understood_or_named(lambda read=read: read(said))
    understood_or_named(lambda: answers.page(said, 1))
    understood_or_named(lambda: answers.hits(said, 1))
    complaint = answers.complaint(said)
    assert complaint == readable(complaint)


def understood_or_named(read: Any) -> None:
    with suppress(answers.NotUnderstood):
        read()


CELLS = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.binary(max_size=12)
    | st.text(max_size=8)
    | st.sampled_from(["[]", "null", "5", '{"keys": []}', '{"hnsw": 5}', "[" * 10_000, "../../x"])
)
TABLES = (
    "collections",
    "databases",
    "embeddings_queue_config",
    "max_seq_id",
    "segments",
    "tenants",
)


@given(data=st.data())
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_row_of_a_database_crashes_a_look(
    chroma_template: ChromaDirectory, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as place:
        directory = chroma_template.copy(Path(place, "chroma"))
        spoil_a_cell(directory.database, data)
        (private := Path(place, "view")).mkdir()
        target = ChromaTarget(path=directory.path, collections={"docs": 1})

        assert is_fit_for_all(light(target, SECONDS))
        order = Order(
            path=str(directory.path),
            view=str(private),
            timeout=SECONDS,
            tenant=target.tenant,
            database=target.database,
            latency_ms=1000,
            collections=target.collections,
            opens=False,
        )
        found = Inspection(order).run()
        assert json.dumps(found.as_dict())
        assert is_fit_for_all(found.as_report("")), asdict(order)
        evidence(target, SECONDS)


def spoil_a_cell(file: Path, data: st.DataObject) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        table = data.draw(st.sampled_from(TABLES), "table")
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        column = data.draw(st.sampled_from(columns), "column")
        value = data.draw(CELLS, "value")
        as_text = data.draw(st.booleans(), "as text") and isinstance(value, bytes)
        said = "CAST(? AS TEXT)" if as_text else "?"
        try:
            connection.execute(f"UPDATE OR IGNORE {table} SET {column} = {said}", (value,))
        except sqlite3.IntegrityError:
            return


def test_a_segment_that_leads_elsewhere_is_not_followed(
    chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    """Its id is a folder's name: what it names would be read, and copied to the same place."""
    elsewhere = chroma_directory.path.parent / "elsewhere"
    chroma_directory.segment.rename(elsewhere)
    chroma_directory.change(
        "UPDATE segments SET id = '../elsewhere' WHERE scope = 'VECTOR' AND collection ="
        " (SELECT id FROM collections WHERE name = 'docs')"
    )

    report = probe(ChromaTarget(path=chroma_directory.path), SECONDS)

    assert report.failure_type == "corrupted_metadata", report
    assert "impossible id" in report.summary

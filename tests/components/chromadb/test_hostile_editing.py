"""What a server that says anything at all may bring about while its collections are changed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from recovery.components.chromadb.api import MOST_BYTES
from recovery.components.chromadb.editing import EVERYTHING, ChromaEditor
from recovery.components.chromadb.index_rebuild import IndexRebuild, RebuildScope
from recovery.components.chromadb.neighbours import beside
from recovery.components.chromadb.rebuilding import served_copy
from recovery.components.chromadb.served_swap import ServedSwap
from recovery.components.chromadb.snapshots import taking
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import DeadlineExceeded, RemedyError, TargetUnreachable
from tests.components.chromadb.test_hostile import JSONS, changed
from tests.journals import RECOVERY, MemoryJournal
from tests.web import WebServer

SECONDS = 60.0
IDENTITY = str(uuid.UUID(int=1))
DOCS: dict[str, Any] = {
    "id": IDENTITY,
    "name": "docs",
    "metadata": {"about": "anything"},
    "configuration_json": {"hnsw": {"space": "l2"}, "embedding_function": None},
    "schema": None,
    "dimension": 2,
}
NEW = beside("docs", "new", RECOVERY)
PAGE: dict[str, Any] = {
    "ids": ["a", "b"],
    "embeddings": [[1.0, 2.0], [3.0, 4.0]],
    "documents": ["one", None],
    "metadatas": [None, {"page": 1}],
    "uris": [None, None],
}
RIGHT: dict[str, Any] = {
    "GET heartbeat": {"nanosecond heartbeat": 1},
    "GET version": "1.0.0",
    "GET collections": [DOCS],
    "POST collections": {**DOCS, "id": str(uuid.UUID(int=2)), "name": NEW},
    "GET docs": DOCS,
    "GET count": 2,
    "GET pre-flight-checks": {"max_batch_size": 5_461},
    "POST get": PAGE,
    "POST query": {"ids": [["a", "b"]], "distances": [[0.0, 1.0]]},
}
QUESTIONS = sorted(set(RIGHT) - {"GET version", "GET heartbeat"})
ODD = [
    None,
    True,
    "12",
    -1,
    10**400,
    [],
    [None],
    {},
    {"ids": 7},
    {"ids": ["a", "a"], "embeddings": [[1.0], [1.0]]},
    {"ids": ["a"], **dict.fromkeys(EVERYTHING)},
    {"ids": [["a"]], **{column: [None] for column in EVERYTHING}},
    {**PAGE, "embeddings": [[float("inf"), 1.0], [1.0, 1.0]]},
    {**PAGE, "documents": ["\ud800", None]},
    {**PAGE, "metadatas": [{"page": float("nan")}, None]},
    {**PAGE, "metadatas": [[], None]},
    {**PAGE, "ids": ["a", "elsewhere"]},
    {"id": "../../x", "name": "docs"},
    {"id": "1"},
    {**DOCS, "configuration_json": []},
    {**DOCS, "dimension": "2"},
    {**DOCS, "name": "another"},
    [DOCS, {"name": "docs"}],
    {"max_batch_size": "many"},
    {"max_batch_size": 0},
]


@dataclass
class Hostile:
    """A Chroma of one collection; each question, known by its method and last word, may get any
    other answer. What it is asked to change it forgets. ``endless``: no page is the last one."""

    endless: bool = False
    said: dict[str, Any] = field(default_factory=lambda: deepcopy(RIGHT))
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        methods = ["GET", "POST", "PUT", "DELETE"]
        route = Route("/{rest:path}", self._answer, methods=methods)
        self.server = WebServer(Starlette(routes=[route]))

    async def _answer(self, request: Request) -> Response:
        question = f"{request.method} {request.url.path.rsplit('/', 1)[-1]}"
        self.asked.append(question)
        if question.endswith(f".new.{NEW.rsplit('.', 1)[-1]}"):
            missing = {"error": "NotFoundError", "message": "does not exist"}
            return Response(json.dumps(missing), 404)
        said = self.said.get(question, {})
        if question == "POST get" and said == PAGE and not self.endless:
            said = _chosen(await request.json())
        content = said if isinstance(said, bytes) else json.dumps(said).encode()
        return Response(content, media_type="application/json")


def _chosen(asked: dict[str, Any]) -> dict[str, Any]:
    """All of the page, or those of the ids; nothing further on."""
    wanted = [] if asked.get("offset") else asked.get("ids", PAGE["ids"])
    rows = [row for row, name in enumerate(PAGE["ids"]) if name in wanted]
    return {column: [values[row] for row in rows] for column, values in PAGE.items()}


@pytest.fixture(scope="module")
def running() -> Iterator[Hostile]:
    found = Hostile()
    found.server.start()
    yield found
    found.server.kill()


@pytest.fixture
def hostile(running: Hostile) -> Hostile:
    running.said, running.endless = deepcopy(RIGHT), False
    running.asked.clear()
    return running


def target(hostile: Hostile, **said: Any) -> ChromaTarget:
    return ChromaTarget(url=hostile.server.url, answer_timeout=SECONDS, **said)


def swap() -> ServedSwap:
    plain = {"recovery_id": RECOVERY, "name": "docs", "old": IDENTITY, "new": "2"}
    return ServedSwap.from_dict({**plain, "content": {"records": 2, "digest": "0"}})


QUESTIONED: dict[str, Callable[[ChromaEditor], object]] = {
    "all": lambda editor: editor.all(),
    "find": lambda editor: editor.find("docs"),
    "create": lambda editor: editor.create(NEW, DOCS),
    "rename": lambda editor: editor.rename(IDENTITY, "other"),
    "drop": lambda editor: editor.drop("docs", IDENTITY),
    "count": lambda editor: editor.count(IDENTITY),
    "read": lambda editor: editor.read(IDENTITY, 0, 2),
    "read without": lambda editor: editor.read(IDENTITY, 0, 2, ("documents", "metadatas", "uris")),
    "read ids": lambda editor: editor.read_ids(IDENTITY, ["a", "b"]),
    "page": lambda editor: editor.page(IDENTITY, 0, 2, EVERYTHING),
    "page size": lambda editor: editor.page_size(2),
    "upsert": lambda editor: editor.upsert(IDENTITY, editor.read(IDENTITY, 0, 2)),
    "place": lambda editor: swap().place(editor),
    "clear": lambda editor: swap().clear_name(editor),
}


def done_or_named(act: Callable[[], object]) -> None:
    """Whatever comes of it, it is nothing that a remedy would crash of."""
    with suppress(RemedyError):
        act()


def test_the_hostile_one_is_understood_where_it_says_it_right(hostile: Hostile) -> None:
    with ChromaEditor.of(target(hostile), SECONDS) as editor:
        for ask in QUESTIONED.values():
            ask(editor)


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_answer_at_all_crashes_who_changes_collections(
    hostile: Hostile, data: st.DataObject
) -> None:
    hostile.said = deepcopy(RIGHT)
    for question in data.draw(st.sets(st.sampled_from(QUESTIONS), min_size=1), "questions"):
        changed(hostile.said, question, data)

    with ChromaEditor.of(target(hostile), SECONDS) as editor:
        for ask in QUESTIONED.values():
            done_or_named(lambda ask=ask: ask(editor))


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: str(odd)[:60])
@pytest.mark.parametrize("question", QUESTIONS)
def test_an_answer_of_the_wrong_kind_is_named(hostile: Hostile, question: str, odd: Any) -> None:
    hostile.said[question] = odd

    with ChromaEditor.of(target(hostile), SECONDS) as editor:
        for ask in QUESTIONED.values():
            done_or_named(lambda ask=ask: ask(editor))


@pytest.mark.parametrize(
    ("question", "act", "odd"),
    [
        ("GET collections", "all", [{"id": "1"}]),
        ("GET docs", "find", {**DOCS, "name": "another"}),
        ("POST collections", "create", {**DOCS, "id": "../.."}),
        ("GET count", "count", "2"),
        ("POST get", "read", {**PAGE, "documents": ["one"]}),
        ("POST get", "read", {**PAGE, "ids": ["a", "a"]}),
        ("POST get", "read ids", {**PAGE, "ids": ["a", "elsewhere"]}),
        ("GET pre-flight-checks", "page size", {"max_batch_size": 0}),
    ],
)
def test_what_is_said_wrong_is_no_chroma(
    hostile: Hostile, question: str, act: str, odd: Any
) -> None:
    hostile.said[question] = odd

    with (
        ChromaEditor.of(target(hostile), SECONDS) as editor,
        pytest.raises(TargetUnreachable, match="is no ChromaDB"),
    ):
        QUESTIONED[act](editor)


def test_an_answer_that_is_too_long_is_named_wherever_it_comes(hostile: Hostile) -> None:
    for question in QUESTIONS:
        hostile.said = {**deepcopy(RIGHT), question: b" " * (MOST_BYTES + 1)}
        with ChromaEditor.of(target(hostile), SECONDS) as editor:
            for name, ask in QUESTIONED.items():
                if not name.startswith("read") and name != "upsert":
                    done_or_named(lambda ask=ask: ask(editor))


def test_a_list_without_an_end_ends_with_the_time(hostile: Hostile) -> None:
    hostile.endless = True
    with ChromaEditor.of(target(hostile), 1.0) as editor, pytest.raises(DeadlineExceeded):
        for _ in editor.pages(IDENTITY, 2):
            pass
    hostile.said["GET collections"] = [{**DOCS, "id": str(n), "name": str(n)} for n in range(1_000)]
    with ChromaEditor.of(target(hostile), 1.0) as editor, pytest.raises(RemedyError):
        editor.all()


@given(odd=JSONS, question=st.sampled_from(QUESTIONS))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_answer_crashes_a_rebuild(
    hostile: Hostile,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    odd: Any,
    question: str,
) -> None:
    state = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("RECOVERY_STATE_DIR", str(state))
    hostile.said = {**deepcopy(RIGHT), question: odd}
    journal = MemoryJournal(state, seconds=SECONDS, scope=RebuildScope(collection="docs"))

    done_or_named(lambda: served_copy.rebuild(target(hostile), IndexRebuild(), journal))


@pytest.mark.parametrize(
    "question", ["GET version", "GET collections", "GET count", "GET pre-flight-checks", "POST get"]
)
@pytest.mark.parametrize("odd", [None, {"ids": 7}, {**DOCS, "id": "../.."}], ids=str)
def test_no_answer_crashes_an_export(
    hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: str, odd: Any
) -> None:
    monkeypatch.setenv("RECOVERY_STATE_DIR", str(tmp_path / "state"))
    hostile.said[question] = odd
    snapshots = {"directory": tmp_path / "snapshots", "timeout": SECONDS}

    done_or_named(lambda: taking.take(target(hostile, snapshots=snapshots), "chromadb/default"))

    assert not list((tmp_path / "snapshots").glob(".making-*"))

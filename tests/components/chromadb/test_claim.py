"""Two hosts, or two targets, that repair one server which both know by its API alone."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recovery.components.chromadb import (
    claim,
    collection_reload,
    exclusive,
    served_replacement,
    served_rollback,
)
from recovery.components.chromadb.editing import ChromaEditor
from recovery.components.chromadb.neighbours import CLAIM
from recovery.components.chromadb.probe import light, probe
from recovery.components.chromadb.rebuilding import served_copy
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import TargetBusy
from recovery.strategy import Parameters
from tests.chroma import COUNT, ServedChroma
from tests.components.chromadb.rebuilds import rebuild, undo_rebuild
from tests.components.chromadb.serving import (
    SECONDS,
    beside,
    damaged,
    killed,
    names,
    standing_still,
    unlinked,
)
from tests.journals import MemoryJournal

_fork = multiprocessing.get_context("fork")


@pytest.fixture
def target(chroma_server: ServedChroma) -> ChromaTarget:
    return ChromaTarget(url=chroma_server.url, collections={"docs": COUNT}, answer_timeout=20)


@pytest.fixture
def editor(target: ChromaTarget) -> Iterator[ChromaEditor]:
    with ChromaEditor.of(target, 4 * SECONDS) as editor:
        yield editor


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for another."""
    for place in (served_copy, served_rollback, served_replacement, collection_reload):
        monkeypatch.setattr(place, "BUSY_SECONDS", 0.2)


@pytest.fixture
def on_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """The state directory is all by which two workers on one machine are two hosts."""

    def move(name: str) -> Path:
        monkeypatch.setenv("RECOVERY_STATE_DIR", str(tmp_path / name / "state"))
        return tmp_path / name

    return move


def another(state: Path, number: int = 2) -> MemoryJournal:
    return MemoryJournal(state, recovery_id=f"another-{number}", seconds=SECONDS)


@pytest.mark.parametrize("moment", ["filled", "aside"])
def test_another_host_leaves_a_repair_alone_that_is_at_work(
    chroma_server: ServedChroma,
    target: ChromaTarget,
    editor: ChromaEditor,
    on_host: Callable[[str], Path],
    moment: str,
) -> None:
    damaged(chroma_server, unlinked)
    before = names(editor)
    one = on_host("one")

    with standing_still(lambda: rebuild(target, one), moment) as first:
        seen = names(editor)
        assert CLAIM in seen
        other = on_host("other")
        with pytest.raises(TargetBusy, match="of another host or target is at work"):
            rebuild(target, other, journal=another(other))
        if moment == "aside":
            assert light(target, SECONDS).failure_type == "collection_missing"
            with pytest.raises(TargetBusy):
                collection_reload.collection_reload.remedy(target, Parameters(), another(other, 3))
        assert names(editor) == seen

    assert first.exitcode == 0
    assert probe(target, SECONDS).healthy
    (aside,) = beside(editor, "aside")
    after = names(editor)
    assert set(after) == {*before, aside}
    assert after[aside] == before["docs"]


def test_an_undo_is_kept_apart_as_well(
    chroma_server: ServedChroma,
    target: ChromaTarget,
    editor: ChromaEditor,
    on_host: Callable[[str], Path],
) -> None:
    damaged(chroma_server, unlinked)
    one = on_host("one")
    rebuild(target, one)
    seen = names(editor)

    other = on_host("other")
    with standing_still(
        lambda: rebuild(target, other, collection="notes", journal=another(other)), "filled"
    ):
        on_host("one")
        with pytest.raises(TargetBusy):
            undo_rebuild(target, one)
        assert names(editor)["docs"] == seen["docs"]


@pytest.mark.kill
def test_the_claim_of_a_killed_one_ends_at_once_here_and_in_its_time_elsewhere(
    chroma_server: ServedChroma,
    target: ChromaTarget,
    editor: ChromaEditor,
    on_host: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    damaged(chroma_server, unlinked)
    one = on_host("one")
    killed(lambda: rebuild(target, one), "aside")
    other = on_host("other")
    with pytest.raises(TargetBusy):
        rebuild(target, other, journal=another(other))
    on_host("one")

    journal = rebuild(target, one, collection="notes", journal=another(one, 3))

    assert any("claim of a repair that is over" in text for text in journal.texts)
    assert "docs: an exchange that was cut off is finished" in journal.texts
    assert probe(target, SECONDS).healthy
    assert CLAIM not in names(editor)

    monkeypatch.setattr(claim, "BACK_SECONDS", 2 - SECONDS)
    short = MemoryJournal(one, recovery_id="short", seconds=SECONDS)
    killed(lambda: rebuild(target, one, collection="docs", journal=short), "filled")
    assert CLAIM in names(editor)
    on_host("other")
    monkeypatch.setattr(served_copy, "BUSY_SECONDS", SECONDS)
    rebuild(target, other, collection="notes", journal=another(other, 4))
    assert CLAIM not in names(editor)


@pytest.mark.kill
def test_the_same_recovery_goes_on_from_another_host(
    chroma_server: ServedChroma,
    target: ChromaTarget,
    editor: ChromaEditor,
    on_host: Callable[[str], Path],
) -> None:
    """The lease says who runs a recovery, and gives it to another when its worker died."""
    damaged(chroma_server, unlinked)
    one = on_host("one")
    killed(lambda: rebuild(target, one), "filled")

    rebuild(target, on_host("other"))

    assert probe(target, SECONDS).healthy
    assert CLAIM not in names(editor)


def test_a_claim_is_nobodys_collection(
    target: ChromaTarget, editor: ChromaEditor, on_host: Callable[[str], Path]
) -> None:
    state = on_host("one")
    with claim.held(target, editor, MemoryJournal(state), 0):
        report = probe(target, SECONDS)
        assert CLAIM in names(editor)

    assert report.healthy
    assert report.figures["collections"] == 3
    assert CLAIM not in names(editor)
    rehearsal = MemoryJournal(state, dry_run=True)
    with claim.held(target, editor, rehearsal, 0):
        assert CLAIM not in names(editor)


def test_of_many_that_claim_at_once_one_at_a_time_has_it(
    target: ChromaTarget, on_host: Callable[[str], Path], tmp_path: Path
) -> None:
    """The first of them finds the claim of one that was killed long ago."""
    inside = tmp_path / "inside"

    def contend(number: int) -> None:
        os.environ["RECOVERY_STATE_DIR"] = str(tmp_path / f"host-{number}")
        claim.PAUSE = 0.02
        for turn in range(4):
            journal = MemoryJournal(
                tmp_path / f"host-{number}", recovery_id=f"{number}-{turn}", seconds=SECONDS
            )
            with (
                exclusive.alone_on_server(target, 0),
                ChromaEditor.of(target, SECONDS) as editor,
                claim.held(target, editor, journal, SECONDS),
            ):
                os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
                time.sleep(0.05)
                inside.unlink()

    with ChromaEditor.of(target, SECONDS) as editor:
        long_ago = {"metadata": {"recovery": "gone", "home": "gone", "until": 1_000_000_000}}
        editor.create(CLAIM, long_ago)
    processes = [_fork.Process(target=contend, args=(number,)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)

    assert [process.exitcode for process in processes] == [0] * 4
    with ChromaEditor.of(target, SECONDS) as editor:
        assert set(names(editor)) == {"docs", "notes", "empty"}

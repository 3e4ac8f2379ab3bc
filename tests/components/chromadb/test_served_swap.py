"""Two collections of a real server change names, and go back; killed in between as well."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recovery.components.chromadb import served_swap
from recovery.components.chromadb.collection_reload import collection_reload
from recovery.components.chromadb.editing import ChromaEditor
from recovery.components.chromadb.neighbours import beside
from recovery.components.chromadb.probe import light, probe
from recovery.components.chromadb.served_swap import ServedSwap
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import NotKept, NotReplaceable, OwnerChanged, WouldOverwrite
from recovery.strategy import Parameters
from tests.chroma import ServedChroma
from tests.journals import RECOVERY, MemoryJournal

SECONDS = 60.0

_fork = multiprocessing.get_context("fork")


@pytest.fixture
def target(chroma_server: ServedChroma) -> ChromaTarget:
    return ChromaTarget(url=chroma_server.url)


@pytest.fixture
def editor(target: ChromaTarget) -> Iterator[ChromaEditor]:
    with ChromaEditor.of(target, SECONDS) as editor:
        yield editor


def prepared(editor: ChromaEditor, name: str = "notes", recovery_id: str = RECOVERY) -> ServedSwap:
    """A new collection beside the one of the name, with one record more."""
    found = editor.find(name)
    assert found is not None
    new = editor.create(beside(name, "new", recovery_id), found)
    records = editor.read(found["id"], 0, 10)
    editor.upsert(new["id"], records)
    add(editor, new["id"], "more")
    return ServedSwap.begin(editor, name, new["id"], recovery_id)


def add(editor: ChromaEditor, identity: str, name: str) -> None:
    editor.upsert(identity, {"ids": [name], "embeddings": [[1.0] * 8], "documents": [name]})


def names(editor: ChromaEditor) -> dict[str, str]:
    return {found["name"]: found["id"] for found in editor.all()}


class HeldUp(ChromaEditor):
    """Stands still after so many renames, so that it can be killed there."""

    left: int
    reached: Any

    def rename(self, identity: str, name: str) -> None:
        super().rename(identity, name)
        self.left -= 1
        if self.left == 0:
            self.reached.set()
            time.sleep(600)


def killed(target: ChromaTarget, after: int, act: Any) -> None:
    """``act`` with an editor in a process of its own, which gets SIGKILL after so many renames."""
    reached = _fork.Event()

    def run() -> None:
        with HeldUp.of(target, SECONDS) as editor:
            editor.left, editor.reached = after, reached
            act(editor)

    process = _fork.Process(target=run)
    process.start()
    assert reached.wait(60)
    process.kill()
    process.join()


def test_the_new_collection_gets_the_name_and_the_old_one_is_aside_with_all_it_holds(
    editor: ChromaEditor, tmp_path: Path
) -> None:
    before = names(editor)
    swap = prepared(editor)

    served_swap.perform(editor, swap, MemoryJournal(tmp_path))

    after = names(editor)
    assert after["notes"] == swap.new
    assert after[swap.beside("aside")] == before["notes"]
    assert (editor.count(swap.new), editor.count(before["notes"])) == (4, 3)
    assert {name: after[name] for name in ("docs", "empty")} == {
        name: before[name] for name in ("docs", "empty")
    }
    made, old = (editor.find(name) for name in ("notes", swap.beside("aside")))
    assert made is not None
    assert old is not None
    for key in ("configuration_json", "metadata", "schema", "dimension"):
        assert made[key] == old[key]


def test_the_way_back_gives_the_old_collection_its_name_and_discarding_deletes_the_other(
    editor: ChromaEditor, tmp_path: Path
) -> None:
    before = names(editor)
    swap = prepared(editor)
    journal = MemoryJournal(tmp_path)
    served_swap.perform(editor, swap, journal)

    undo = MemoryJournal(tmp_path, recovery_id="undo")
    served_swap.undo(editor, undo, journal.keep())

    assert names(editor) == {**before, beside("notes", "aside", "undo"): swap.new}
    served_swap.discard(editor, journal.keep())
    assert editor.count(str(swap.new)) == 4
    for _ in range(2):
        served_swap.discard(editor, undo.keep())
    assert names(editor) == before


def test_discarding_an_exchange_deletes_the_collection_from_before_alone(
    editor: ChromaEditor, tmp_path: Path
) -> None:
    swap = prepared(editor)
    journal = MemoryJournal(tmp_path)
    served_swap.perform(editor, swap, journal)

    served_swap.discard(editor, journal.keep())

    assert set(names(editor)) == {"docs", "notes", "empty"}
    assert editor.count(swap.new) == 4
    with pytest.raises(NotKept):
        served_swap.undo(editor, MemoryJournal(tmp_path, recovery_id="undo"), journal.keep())


def test_what_was_written_since_is_given_up_only_where_that_was_said(
    editor: ChromaEditor, tmp_path: Path
) -> None:
    swap = prepared(editor)
    journal = MemoryJournal(tmp_path)
    served_swap.perform(editor, swap, journal)
    add(editor, swap.new, "written since")

    with pytest.raises(WouldOverwrite):
        served_swap.undo(editor, MemoryJournal(tmp_path, recovery_id="undo"), journal.keep())

    assert names(editor)["notes"] == swap.new
    knowing = MemoryJournal(tmp_path, recovery_id="undo", overwrite=True)
    served_swap.undo(editor, knowing, journal.keep())
    assert names(editor)["notes"] == swap.old
    assert editor.count(names(editor)[beside("notes", "aside", "undo")]) == 5


@pytest.mark.kill
@pytest.mark.parametrize("host", ["same", "another"])
def test_killed_between_the_renames_it_is_finished_by_the_next_run(
    target: ChromaTarget, editor: ChromaEditor, tmp_path: Path, host: str
) -> None:
    """On another host there is no note: the names on the server alone say where it stood."""
    swap = prepared(editor)
    killed(target, 1, lambda held: served_swap.perform(held, swap, MemoryJournal(tmp_path)))
    assert "notes" not in names(editor)

    if host == "same":
        served_swap.perform(editor, swap, MemoryJournal(tmp_path, recovery_id="again"))
    else:
        journal = MemoryJournal(tmp_path / "elsewhere", recovery_id="unrelated")
        served_swap.settle(editor, journal)
        assert journal.texts == ["notes: an exchange that was cut off is finished"]

    assert names(editor)["notes"] == swap.new
    assert names(editor)[swap.beside("aside")] == swap.old


@pytest.mark.kill
def test_what_was_cut_off_is_seen_by_the_probe_and_ended_by_a_reload(
    target: ChromaTarget,
    editor: ChromaEditor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Although no policy says that the collection must be there."""
    monkeypatch.setenv("RECOVERY_STATE_DIR", str(tmp_path / "state"))
    target = target.model_copy(update={"answer_timeout": 20})
    swap = prepared(editor)
    killed(target, 1, lambda held: served_swap.perform(held, swap, MemoryJournal(tmp_path)))
    found = probe(target, SECONDS)
    assert (found.failure_type, light(target, SECONDS).failure_type) == ("collection_missing",) * 2
    assert "its exchange was cut off" in found.summary

    collection_reload.remedy(target, Parameters(), MemoryJournal(tmp_path, recovery_id="other"))

    assert probe(target, SECONDS).healthy
    assert names(editor)["notes"] == swap.new


def test_an_undo_can_be_undone_and_that_as_well(editor: ChromaEditor, tmp_path: Path) -> None:
    swap = prepared(editor)
    journals = [MemoryJournal(tmp_path, recovery_id=f"undo-{number}") for number in range(4)]
    served_swap.perform(editor, swap, journals[0])

    for number in range(1, 4):
        served_swap.undo(editor, journals[number], journals[number - 1].keep())
        owner, aside = (swap.new, swap.old) if number % 2 == 0 else (swap.old, swap.new)
        after = names(editor)
        assert after["notes"] == owner
        assert after[beside("notes", "aside", f"undo-{number}")] == aside
        assert len(after) == 4
        entry = journals[number].keep().entry()
        assert (entry.summary, entry.bytes) == ("collections from before the undo: notes", None)


def test_what_is_written_after_an_undo_is_given_up_by_its_undo_only_where_that_was_said(
    editor: ChromaEditor, tmp_path: Path
) -> None:
    swap = prepared(editor)
    journal, undo, third = (
        MemoryJournal(tmp_path, recovery_id=name) for name in ("first", "undo", "third")
    )
    served_swap.perform(editor, swap, journal)
    served_swap.undo(editor, undo, journal.keep())
    add(editor, str(swap.old), "written since")

    with pytest.raises(WouldOverwrite, match="it held 3 records and holds 4"):
        served_swap.undo(editor, third, undo.keep())

    assert names(editor)["notes"] == swap.old
    third.overwrite = True
    served_swap.undo(editor, third, undo.keep())
    assert names(editor)["notes"] == swap.new


def test_nothing_goes_back_where_one_of_several_was_written_to_since(
    editor: ChromaEditor, tmp_path: Path
) -> None:
    journal = MemoryJournal(tmp_path)
    swaps = [prepared(editor, "empty"), prepared(editor)]
    for swap in swaps:
        served_swap.perform(editor, swap, journal)
    add(editor, str(swaps[1].new), "written since")
    before = names(editor)

    with pytest.raises(WouldOverwrite):
        served_swap.undo(editor, MemoryJournal(tmp_path, recovery_id="undo"), journal.keep())

    assert names(editor) == before


@pytest.mark.kill
@pytest.mark.parametrize("renames", [1, 2])
@pytest.mark.parametrize("undo", ["same", "another"])
def test_an_undo_that_was_killed_is_brought_to_its_end(
    target: ChromaTarget, editor: ChromaEditor, tmp_path: Path, undo: str, renames: int
) -> None:
    """By itself once more, or by another one after the names alone said where it stood."""
    swap = prepared(editor)
    journal = MemoryJournal(tmp_path)
    served_swap.perform(editor, swap, journal)
    (tmp_path / "undo").mkdir()
    same = MemoryJournal(tmp_path / "undo", recovery_id="same")
    killed(target, renames, lambda held: served_swap.undo(held, same, journal.keep()))
    assert ("notes" in names(editor)) is (renames == 1)

    again = MemoryJournal(tmp_path / undo, recovery_id=undo)
    served_swap.settle(editor, again)
    served_swap.undo(editor, again, journal.keep())

    after = names(editor)
    assert after["notes"] == swap.old
    (aside,) = set(after) - {"docs", "notes", "empty"}
    assert after[aside] == swap.new
    assert ".aside." in aside


@pytest.mark.kill
@pytest.mark.parametrize("host", ["same", "another"])
def test_a_way_back_that_was_killed_between_the_renames_is_ended_by_the_next_run(
    target: ChromaTarget, editor: ChromaEditor, tmp_path: Path, host: str
) -> None:
    swap = prepared(editor)
    served_swap.perform(editor, swap, MemoryJournal(tmp_path))
    killed(target, 1, lambda held: swap.back(held, overwrite=False))
    assert "notes" not in names(editor)

    if host == "same":
        swap.back(editor, overwrite=False)
    else:
        served_swap.settle(editor, MemoryJournal(tmp_path / "elsewhere", recovery_id="unrelated"))

    assert names(editor)["notes"] == swap.old
    assert names(editor)[swap.beside("undone")] == swap.new


def test_nothing_is_settled_where_a_person_deleted_the_new_collection(
    editor: ChromaEditor, tmp_path: Path
) -> None:
    swap = prepared(editor)
    served_swap.perform(editor, swap, MemoryJournal(tmp_path))
    editor.drop("notes", swap.new)

    served_swap.settle(editor, MemoryJournal(tmp_path, recovery_id="next"))

    assert "notes" not in names(editor)


def test_a_name_that_was_nobodys_goes_to_the_new_one_and_back_to_nobody(
    editor: ChromaEditor, tmp_path: Path
) -> None:
    like = editor.find("notes")
    assert like is not None
    new = editor.create(beside("lost", "new", RECOVERY), like)
    add(editor, new["id"], "found")
    swap = ServedSwap.begin(editor, "lost", new["id"], RECOVERY)
    journal = MemoryJournal(tmp_path)

    served_swap.perform(editor, swap, journal)

    assert names(editor)["lost"] == new["id"]
    undo = MemoryJournal(tmp_path, recovery_id="undo")
    served_swap.undo(editor, undo, journal.keep())
    assert "lost" not in names(editor)
    assert editor.count(new["id"]) == 1
    served_swap.undo(editor, MemoryJournal(tmp_path, recovery_id="third"), undo.keep())
    assert names(editor)["lost"] == new["id"]
    assert set(names(editor)) == {"docs", "notes", "empty", "lost"}


@pytest.mark.parametrize("is_used", [False, True], ids=["empty", "written to"])
def test_a_collection_that_an_application_made_in_between_is_never_lost(
    target: ChromaTarget, editor: ChromaEditor, tmp_path: Path, is_used: bool
) -> None:
    swap = prepared(editor)
    killed(target, 1, lambda held: served_swap.perform(held, swap, MemoryJournal(tmp_path)))
    third = editor.create("notes", {"metadata": None})
    if is_used:
        add(editor, third["id"], "written in between")
        with pytest.raises(OwnerChanged):
            swap.forward(editor)
        assert names(editor)["notes"] == third["id"]
        return

    swap.forward(editor)

    assert names(editor)["notes"] == swap.new
    assert names(editor)[swap.beside("between")] == third["id"]


def test_a_name_without_room_for_an_ending_is_refused_before_anything_changes() -> None:
    with pytest.raises(NotReplaceable):
        beside("n" * 500, "aside", RECOVERY)

"""What a host keeps of its recoveries: told to everybody, bounded, and given up in its time."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recovery import holdings, keeping
from recovery.config import Environment
from recovery.errors import InvalidEvent, NothingKept, NotKept, UnknownRecovery
from recovery.finding import find_discard, find_strategy
from recovery.keeping import FREE_SHARE, MANIFEST, KeptFolder, KeptState, Shelf
from tests.stack import Stack
from tests.waiting import until
from workers.maintenance import host_queues

DAY_MS = 86_400_000
fork = multiprocessing.get_context("fork")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(directory=tmp_path / "kept", host="here")


@pytest.fixture
def policy_options() -> dict[str, Any]:
    flush = {"name": "flush_corrupted", "key_patterns": [{"pattern": "cache:*", "no_ttl": True}]}
    return {"extra_strategies": [flush], "sections": {"undo": {"retention": "1d"}}}


def put_aside(shelf: Shelf, recovery_id: str, size: int = 100, now_ms: int = 0) -> None:
    kept = shelf.keep(
        recovery_id, target="redis/default", strategy="flush_corrupted", now_ms=now_ms
    )
    (kept.folder / "data").write_bytes(b"x" * size)
    kept.store("some data", parts=1)
    kept.close()


def test_facts_are_on_the_disk_and_are_merged_when_it_is_taken_up_again(shelf: Shelf) -> None:
    put_aside(shelf, "a")
    again = shelf.keep("a")
    again.store("more data", size=2)
    again.close()

    found = shelf.open("a")

    assert found.facts == {"parts": 1, "size": 2}
    assert found.entry().summary == "more data"
    assert found.entry().target == "redis/default"
    assert (found.folder / "data").stat().st_size == 100
    assert oct(found.folder.stat().st_mode)[-3:] == "700"
    found.close()


def test_what_is_kept_beside_a_folder_counts_as_long_as_it_is_there(
    shelf: Shelf, tmp_path: Path
) -> None:
    aside = tmp_path / "aside"
    (aside / "deep").mkdir(parents=True)
    (aside / "deep" / "data").write_bytes(b"x" * 50_000)
    put_aside(shelf, "a")
    kept = shelf.open("a")
    alone = kept.entry().bytes
    assert alone is not None
    assert 100 < alone < 2_000

    kept.store("a directory from before", lies_beside=[str(aside)])

    counted = kept.entry().bytes
    assert counted is not None
    assert 50_000 <= counted - alone < 51_000
    shutil.rmtree(aside)
    assert (kept.entry().bytes or 0) < 2_000
    kept.close()


def test_how_much_lies_on_a_server_is_not_said_to_be_nothing(stack: Stack) -> None:
    _, shelf = host(stack)
    put_aside(shelf, "a", now_ms=stack.control.now_ms())
    kept = shelf.open("a")

    kept.store("a collection from before", lies_beside=None)

    (entry,) = holdings.held(stack.control)
    assert (entry.bytes, kept.entry().bytes) == (None, None)
    kept.mark(KeptState.DISCARDED)
    (entry,) = holdings.held(stack.control)
    assert entry.bytes == 0
    kept.close()


def test_what_was_told_and_is_not_kept_after_all_cannot_be_undone(stack: Stack) -> None:
    _, shelf = host(stack)
    kept = shelf.keep(
        "a",
        target="redis/default",
        strategy="flush_corrupted",
        now_ms=stack.control.now_ms(),
    )
    kept.store("being made anew")
    assert holdings.find(stack.control, "a").summary == "being made anew"

    kept.store("")
    kept.close()

    assert shelf.ids() == ()
    with pytest.raises(NotKept, match="discarded already"):
        holdings.find(stack.control, "a")


def test_a_folder_in_which_nothing_was_stored_leaves_no_trace(shelf: Shelf) -> None:
    shelf.keep("a").close()

    assert shelf.ids() == ()
    with pytest.raises(NotKept):
        shelf.open("a")


@pytest.mark.parametrize("name", ["../a", "a/b", ".hidden", "", "a" * 200, "a\x00b"])
def test_an_id_that_leads_elsewhere_is_refused(shelf: Shelf, name: str) -> None:
    with pytest.raises(NothingKept):
        shelf.keep(name)
    with pytest.raises(NotKept):
        shelf.open(name)


def test_a_folder_belongs_to_one_process_until_that_dies(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "LOCK_SECONDS", 0.1)
    here, there = fork.Pipe()

    def hold() -> None:
        shelf.keep("a").store("held")
        there.send("held")
        there.recv()

    process = fork.Process(target=hold)
    process.start()
    here.recv()
    with pytest.raises(NothingKept, match="another process"):
        shelf.keep("a")
    process.kill()
    process.join()

    shelf.keep("a").close()


def test_there_is_room_within_the_budget_and_never_for_the_last_of_the_disk(shelf: Shelf) -> None:
    put_aside(shelf, "a", size=60_000)
    disk = shutil.disk_usage(shelf.directory)

    bounded = replace(shelf, budget_bytes=100_000).room()

    assert 39_000 < bounded < 40_000
    assert replace(shelf, budget_bytes=50_000).room() == 0
    assert abs(shelf.room() - (disk.free - disk.total * FREE_SHARE)) < disk.total / 100


def test_a_disk_that_takes_nothing_is_named(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file where the folder should be")

    with pytest.raises(NothingKept, match="nothing can be put aside"):
        shelf.keep("a")
    with pytest.raises(NothingKept, match="nothing can be put aside"):
        shelf.room()


def test_a_manifest_that_cannot_be_read_is_not_taken_for_nothing(shelf: Shelf) -> None:
    put_aside(shelf, "a")
    (shelf.directory / "a" / MANIFEST).write_text("{")

    with pytest.raises(NothingKept, match="cannot be read"):
        shelf.keep("a")
    with pytest.raises(NothingKept, match="cannot be read"):
        shelf.open("a")


def host(stack: Stack) -> tuple[Environment, Shelf]:
    environment = Environment.read(stack.environ)
    return environment, holdings.shelf(stack.control, stack.policy, environment)


def test_what_is_kept_is_known_everywhere_and_a_lost_control_plane_is_told_again(
    stack: Stack,
) -> None:
    environment, shelf = host(stack)
    put_aside(shelf, "a", now_ms=stack.control.now_ms())
    known = holdings.held(stack.control)
    stack.control.redis.flushall()

    holdings.sweep(stack.control, stack.policy, environment)

    assert holdings.held(stack.control) == known
    (entry,) = known
    assert (entry.recovery_id, entry.host, entry.summary) == ("a", "test-host", "some data")
    assert entry.bytes > 100
    assert entry.expires_ms - entry.kept_ms == DAY_MS


def test_only_what_has_expired_is_discarded_and_may_be_twice(stack: Stack) -> None:
    environment, shelf = host(stack)
    now_ms = stack.control.now_ms()
    put_aside(shelf, "old", now_ms=now_ms - DAY_MS - 1)
    put_aside(shelf, "new", now_ms=now_ms)

    discarded = [holdings.sweep(stack.control, stack.policy, environment) for _ in range(2)]

    assert discarded == [1, 0]
    assert shelf.ids() == ("new",)
    states = {entry.recovery_id: entry.state for entry in holdings.held(stack.control)}
    assert states == {"old": KeptState.DISCARDED, "new": KeptState.AVAILABLE}
    with pytest.raises(NotKept, match="was discarded already; what can be undone: new"):
        holdings.find(stack.control, "old")


def test_an_unknown_id_is_answered_with_what_there_is(stack: Stack) -> None:
    _, shelf = host(stack)
    for name in ("ab1", "ab2"):
        put_aside(shelf, name, now_ms=stack.control.now_ms())

    with pytest.raises(UnknownRecovery, match="what can be undone: ab1, ab2"):
        holdings.find(stack.control, "x")
    with pytest.raises(InvalidEvent, match="begins the ids of 2"):
        holdings.find(stack.control, "ab")
    assert holdings.find(stack.control, "ab2").recovery_id == "ab2"


DISCARDED: list[str] = []


def discard(target: Any, parameters: Any, kept: KeptFolder) -> None:
    """What a strategy keeps outside its folder is a file here."""
    assert target.url
    assert parameters.key_patterns
    DISCARDED.append(kept.recovery_id)
    Path(kept.facts["outside"]).unlink(missing_ok=True)


@pytest.fixture
def strategy_with_a_discard(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_strategy("redis", "flush_corrupted")
    was = found.discard
    object.__setattr__(found, "discard", "tests.test_keeping:discard")
    find_discard.cache_clear()
    monkeypatch.setattr("tests.test_keeping.DISCARDED", [])
    yield
    object.__setattr__(found, "discard", was)
    find_discard.cache_clear()


def keep_outside(stack: Stack, shelf: Shelf, outside: Path, name: str, age_ms: int) -> None:
    outside.write_text("kept outside the folder")
    now_ms = stack.control.now_ms() - age_ms
    kept = shelf.keep(name, target="redis/default", strategy="flush_corrupted", now_ms=now_ms)
    for number in range(50):
        (kept.folder / f"file-{number}").write_bytes(os.urandom(1000))
    kept.store("some data", outside=str(outside))
    kept.close()


@pytest.mark.usefixtures("strategy_with_a_discard")
def test_the_strategy_gives_up_first_what_it_keeps_elsewhere(stack: Stack, tmp_path: Path) -> None:
    environment, shelf = host(stack)
    keep_outside(stack, shelf, tmp_path / "outside", "old", 2 * DAY_MS)

    holdings.sweep(stack.control, stack.policy, environment)

    assert DISCARDED == ["old"]
    assert not (tmp_path / "outside").exists()
    assert list(shelf.directory.iterdir()) == []


@pytest.mark.usefixtures("strategy_with_a_discard")
def test_what_cannot_be_given_up_now_stays_for_the_next_time(stack: Stack, tmp_path: Path) -> None:
    environment, shelf = host(stack)
    kept = shelf.keep("old", target="redis/gone", strategy="flush_corrupted", now_ms=1)
    kept.store("of a target that the policy does not name any more")
    kept.close()

    assert holdings.sweep(stack.control, stack.policy, environment) == 0

    assert shelf.ids() == ("old",)


@pytest.mark.kill
@pytest.mark.usefixtures("strategy_with_a_discard")
def test_a_sweep_killed_anywhere_is_finished_by_the_next(stack: Stack, tmp_path: Path) -> None:
    environment, shelf = host(stack)
    url = stack.environ["RECOVERY_REDIS_URL"]
    names = [f"old-{number}" for number in range(40)]
    for name in names:
        keep_outside(stack, shelf, tmp_path / f"outside-{name}", name, 2 * DAY_MS)
    keep_outside(stack, shelf, tmp_path / "outside-new", "new", 0)

    def sweep() -> None:
        import redis

        from recovery.controlplane import ControlPlane

        control = ControlPlane(redis.Redis.from_url(url, decode_responses=True))
        holdings.sweep(control, stack.policy, environment)

    for _ in range(30):
        process = fork.Process(target=sweep)
        process.start()
        process.join(random.uniform(0, 0.05))
        process.kill()
        process.join()
    sweep()

    assert shelf.ids() == ("new",)
    assert [path.name for path in tmp_path.glob("outside-*")] == ["outside-new"]
    assert [path.name for path in shelf.directory.iterdir()] == ["new"]
    states = {entry.recovery_id: entry.state for entry in holdings.held(stack.control)}
    assert states == dict.fromkeys(names, KeptState.DISCARDED) | {"new": KeptState.AVAILABLE}


def test_a_manifest_says_no_more_than_everybody_may_know(shelf: Shelf) -> None:
    put_aside(shelf, "a")

    written = json.loads((shelf.directory / "a" / MANIFEST).read_text())

    assert set(written) == {
        "recovery_id",
        "target",
        "strategy",
        "summary",
        "kept_ms",
        "expires_ms",
        "state",
        "undone_by",
        "facts",
    }


def test_each_host_with_a_worker_is_visited_once() -> None:
    consumed = {
        "a@1": [{"name": "redis"}, {"name": "redis.db-1.example"}, {"name": "maintenance"}],
        "b@1": [{"name": "system.db-1.example"}, {"name": "celery.db-2"}],
        "c@2": [{"name": "chromadb.db-2"}],
    }

    assert host_queues(consumed) == ["chromadb.db-2", "redis.db-1.example"]


def test_the_schedule_has_every_host_sweep(stack: Stack, fleet: Any) -> None:
    environment, shelf = host(stack)
    put_aside(shelf, "old", now_ms=stack.control.now_ms() - 2 * DAY_MS)
    stack.control.redis.flushall()
    fleet.start(queues=("maintenance", "redis", f"redis.{environment.host}"))

    stack.app.send_task("recovery.visit_hosts", queue="maintenance")

    until(lambda: not shelf.ids(), what="the expired folder is discarded")
    (entry,) = until(lambda: holdings.held(stack.control), what="the control plane knows")
    assert entry.state is KeptState.DISCARDED

"""``recovery undo`` as a person and as a script use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recovery import holdings
from recovery.config import Environment
from tests.cli.test_commands import recovery
from tests.fleet import DEFAULT_QUEUES, Fleet
from tests.stack import Stack

FLUSH = ("recover", "--component", "redis", "--strategy", "flush_corrupted", "--wait", "--json")


@pytest.fixture
def policy_options() -> dict[str, Any]:
    flush = {"name": "flush_corrupted", "key_patterns": [{"pattern": "cache:*", "no_ttl": True}]}
    return {"extra_strategies": [flush]}


def put_aside(
    stack: Stack, recovery_id: str, strategy: str = "flush_corrupted", **facts: Any
) -> None:
    environment = Environment.read(stack.environ)
    shelf = holdings.shelf(stack.control, stack.policy, environment)
    kept = shelf.keep(
        recovery_id,
        target="redis/default",
        strategy=strategy,
        now_ms=stack.control.now_ms(),
    )
    kept.store("some data", **facts)
    kept.close()


def test_a_flush_is_listed_rehearsed_refused_overwritten_and_listed_again(
    stack: Stack, fleet: Fleet
) -> None:
    fleet.start(queues=(*DEFAULT_QUEUES, "redis.test-host"))
    with stack.target.client() as client:
        client.mset({f"cache:{number}": "old" for number in range(20)})
    flushed = recovery(stack, *FLUSH)
    assert flushed.returncode == 0, flushed.stdout + flushed.stderr
    identity = json.loads(flushed.stdout)["id"]
    (listed,) = json.loads(recovery(stack, "undo", "--list", "--json").stdout)
    assert (listed["recovery_id"], listed["state"]) == (identity, "available")
    with stack.target.client() as client:
        client.set("cache:7", "new")

    rehearsed = recovery(stack, "undo", identity[:8], "--dry-run", "--wait")
    refused = recovery(stack, "undo", identity[:8], "--wait", "--json")
    undone = recovery(stack, "undo", identity[:8], "--overwrite", "--wait", "--reason", "needed")
    again = recovery(stack, "undo", identity[:8])

    assert rehearsed.returncode == 1
    assert "1 of the keys hold other data by now" in rehearsed.stdout
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["error"] == "would_overwrite"
    assert undone.returncode == 0, undone.stdout + undone.stderr
    assert "undone after" in undone.stdout
    with stack.target.client() as client:
        assert client.get("cache:7") == "old"
        assert client.dbsize() == 20
    assert again.returncode == 3
    assert f"recovery {identity} was undone already by" in again.stderr
    shown = recovery(stack, "undo", "--list").stdout
    assert "20 corrupted keys of cache:*" in shown
    assert "1 newer keys that an undo replaced" in shown
    trail = recovery(stack, "history").stdout
    assert "undone" in trail


def test_how_much_is_kept_is_listed_as_far_as_anybody_knows(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "aside").mkdir()
    (tmp_path / "aside" / "data").write_bytes(bytes(2_500_000))
    put_aside(stack, "directory", lies_beside=[str(tmp_path / "aside")])
    put_aside(stack, "collection", lies_beside=None)

    listed = {
        entry["recovery_id"]: entry["bytes"]
        for entry in json.loads(recovery(stack, "undo", "--list", "--json").stdout)
    }
    shown = recovery(stack, "undo", "--list").stdout.splitlines()

    assert listed["collection"] is None
    assert 2_500_000 < listed["directory"] < 2_510_000
    (directory,) = [line for line in shown if "directory" in line]
    (collection,) = [line for line in shown if "collection" in line]
    assert "2.5" in directory
    assert "?" in collection


def test_an_unknown_recovery_is_answered_with_what_can_be_undone(stack: Stack) -> None:
    nothing = recovery(stack, "undo", "x")
    put_aside(stack, "3f2a")

    answer = recovery(stack, "undo", "x")
    as_json = recovery(stack, "undo", "x", "--json")

    assert nothing.returncode == answer.returncode == as_json.returncode == 2
    assert "nothing can be undone now" in nothing.stderr
    assert "what can be undone: 3f2a" in answer.stderr
    assert json.loads(as_json.stdout)["facts"]["kept"] == ["3f2a"]


def test_what_is_only_to_be_read_is_listed_as_that_and_refused_at_once(stack: Stack) -> None:
    put_aside(stack, "3f2a")
    put_aside(stack, "names", strategy="reconnect")

    shown = recovery(stack, "undo", "--list").stdout.splitlines()
    listed = json.loads(recovery(stack, "undo", "--list", "--json").stdout)
    refused = recovery(stack, "undo", "names")
    unknown = recovery(stack, "undo", "x", "--json")

    assert {one["recovery_id"]: one["can_be_undone"] for one in listed} == {
        "3f2a": True,
        "names": False,
    }
    (line,) = [line for line in shown if "names" in line]
    assert "to read only" in line
    assert refused.returncode == 3
    assert "reconnect cannot be undone; what it kept is to be read (some data)" in refused.stderr
    assert "what can be undone: 3f2a" in refused.stderr
    assert json.loads(unknown.stdout)["facts"]["kept"] == ["3f2a"]


@pytest.mark.parametrize("arguments", [(), ("3f2a", "--list")])
def test_it_wants_a_recovery_or_the_list(stack: Stack, arguments: tuple[str, ...]) -> None:
    answer = recovery(stack, "undo", *arguments)

    assert answer.returncode == 2
    assert "name a recovery, or ask for --list" in answer.stderr


def test_without_waiting_it_says_how_to_follow(stack: Stack) -> None:
    put_aside(stack, "3f2a")

    answer = recovery(stack, "undo", "3f2a", "--json")

    assert answer.returncode == 0
    assert json.loads(answer.stdout)["id"] != "3f2a"


def test_an_empty_list_says_so(stack: Stack) -> None:
    assert "Kept: none" in recovery(stack, "undo", "--list").stdout
    assert json.loads(recovery(stack, "undo", "--list", "--json").stdout) == []


def test_a_policy_without_key_patterns_is_told_that_nothing_will_be_flushed(stack: Stack) -> None:
    text = stack.policy_file.read_text()
    stack.policy_file.write_text(
        text[: text.index("    - name: flush_corrupted")]
        + ("    - name: flush_corrupted\n" + text[text.index("degraded_modes:") :])
    )

    checked = recovery(stack, "config", "check")
    refused = recovery(stack, "test", "--component", "redis", "--strategy", "flush_corrupted")

    assert checked.returncode == 0, checked.stderr
    assert "key_patterns must name the keyspaces" in checked.stdout
    assert refused.returncode == 1

"""What a policy may declare of a keyspace, and which values break it."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from recovery.components.redis import spared
from recovery.components.redis.corruption import KeyPattern

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(), below, max_size=4),
)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({}, "declares nothing"),
        ({"decodes_as": "length"}, "needs length, min or max"),
        ({"type": "hash", "decodes_as": "json"}, "speak of strings"),
        ({"type": "set", "max": 3}, "speak of strings"),
        ({"length": 3, "min": 1}, "one of both"),
        ({"min": 3, "max": 2}, "min is above max"),
        ({"no_ttl": True, "delete": True}, "Extra inputs"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(said: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        KeyPattern.model_validate({"pattern": "cache:*", **said})


@given(PLAIN)
def test_what_was_encoded_decodes(value: Any) -> None:
    assert KeyPattern(pattern="x", decodes_as="json").decodes(json.dumps(value).encode())
    packed = msgpack.packb(value)
    assert KeyPattern(pattern="x", decodes_as="msgpack").decodes(packed)


@given(PLAIN, st.data())
def test_what_was_cut_off_does_not(value: Any, data: st.DataObject) -> None:
    text = json.dumps({"value": value}).encode()
    packed = msgpack.packb({"value": value})

    shorter = data.draw(st.integers(0, min(len(text), len(packed)) - 1))

    assert not KeyPattern(pattern="x", decodes_as="json").decodes(text[:shorter])
    assert not KeyPattern(pattern="x", decodes_as="msgpack").decodes(packed[:shorter])


def test_what_nests_too_deep_to_be_followed_is_left_alone() -> None:
    assert KeyPattern(pattern="x", decodes_as="json").decodes(b"[" * 100_000)
    assert KeyPattern(pattern="x", decodes_as="msgpack").decodes(b"\x91" * 100_000)


@pytest.mark.parametrize(
    "key",
    [
        b"_kombu.binding.celery",
        b"app:_kombu.binding.celery",
        b"unacked",
        b"unacked_index",
        b"unacked_mutex",
        b"unacked-of-my-own",
        b"app:unacked_index",
        b"appunacked",
        b"celery-task-meta-6c1b",
        b"app_celery-task-meta-6c1b",
        b"celery-taskset-meta-1.j",
        b"chord-unlock-1",
        b"recovery:audit",
        b"mine:audit",
    ],
)
def test_celerys_and_our_own_keys_are_spared(key: bytes) -> None:
    assert spared.is_spared(key, b"mine:")


@pytest.mark.parametrize("key", [b"cache:1", b"packed", b"repacked_index", b"a:unpacked", b"rec"])
def test_other_keys_are_not(key: bytes) -> None:
    assert not spared.is_spared(key, b"mine:")


def test_a_queue_is_known_by_its_binding_with_prefix_and_priority() -> None:
    members = [b"jobs\x06\x16\x06\x16jobs", b"#.new\x06\x16x\x06\x16cache:new"]

    found = spared.queues(b"app:_kombu.binding.jobs", members)

    assert found == {b"app:jobs", b"app:cache:new"}
    assert spared.is_queue(b"app:jobs\x06\x169", found)
    assert not spared.is_queue(b"jobs", found)

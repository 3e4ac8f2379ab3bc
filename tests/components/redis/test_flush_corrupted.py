"""``flush_corrupted`` on real servers: what goes, what stays, and what is kept of what went."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace
from typing import Any

import msgpack
import pytest
import redis
from celery import Celery

from recovery.components.redis import keyspace
from recovery.components.redis.corruption import KeyPattern
from recovery.components.redis.flush_corrupted import FlushCorrupted
from recovery.components.redis.keyspace import CHANGED, REMOVED, Rule
from recovery.components.redis.pace import Pace
from recovery.errors import NothingKept, RemedyError, StillUnhealthy, TargetRefused
from tests.components.redis.flushing import NO_TTL, Surgery, figures, holdings
from tests.waiting import until

PLENTY = 3000


def fill(client: redis.Redis, count: int = PLENTY) -> None:
    """A tenth without a TTL, in the keyspace and beside it."""
    pipe = client.pipeline(transaction=False)
    for number in range(count):
        expiry = None if number % 10 == 0 else 10_000
        pipe.set(f"cache:{number}", b"\x00\xff" * 20 + str(number).encode(), ex=expiry)
        pipe.set(f"session:{number}", "s", ex=expiry)
    pipe.execute()


def test_only_the_corrupted_keys_of_the_keyspace_go_and_all_are_kept(any_patient: Surgery) -> None:
    client = any_patient.client()
    fill(client)
    before = holdings(client)
    corrupted = {key for key in before if key.startswith(b"cache:") and before[key][2] == -1}

    steps = any_patient.flush(NO_TTL)

    after = holdings(client)
    assert before.keys() - after.keys() == corrupted
    assert all(after[key] == before[key] for key in after)
    assert any_patient.kept().keys() == corrupted
    assert figures(steps, "removed") == len(corrupted) == PLENTY / 10
    assert figures(steps, "still_corrupted") == 0
    assert figures(steps, "no_ttl") == PLENTY / 10


def test_the_memory_that_comes_free_is_said(patient: Surgery) -> None:
    client = patient.client()
    for number in range(100):
        client.rpush(f"cache:{number}", *(f"{number} {item}" * 10 for item in range(1000)))

    steps = patient.flush(NO_TTL)

    assert figures(steps, "memory_before_mb") - figures(steps, "memory_after_mb") > 5


VECTOR = b"\x00\x00\x80?" * 4


@pytest.mark.parametrize(
    ("rule", "healthy", "corrupted"),
    [
        ({"type": "hash"}, {"hset": [{"a": "1"}]}, {"set": ["a"]}),
        ({"type": "string"}, {"set": [b""]}, {"rpush": ["a"]}),
        ({"decodes_as": "json"}, {"set": [json.dumps({"a": [1]})]}, {"set": [b'{"a": ']}),
        ({"decodes_as": "json"}, {"set": ["1"]}, {"sadd": ["1"]}),
        ({"decodes_as": "msgpack"}, {"set": [msgpack.packb({"a": 1})]}, {"set": [b"\xc1"]}),
        ({"decodes_as": "length", "length": 16}, {"set": [VECTOR]}, {"set": [VECTOR[:-1]]}),
        ({"min": 2}, {"set": ["ab"]}, {"set": ["a"]}),
        ({"max": 2, "type": "string"}, {"set": ["ab"]}, {"set": ["abc"]}),
    ],
)
def test_a_key_that_breaks_the_rule_goes_and_one_that_keeps_it_stays(
    any_patient: Surgery,
    rule: dict[str, Any],
    healthy: dict[str, list[Any]],
    corrupted: dict[str, list[Any]],
) -> None:
    client = any_patient.client()
    for name, content in (("good", healthy), ("bad", corrupted)):
        ((command, arguments),) = content.items()
        if command == "hset":
            client.hset(f"doc:{name}", mapping=arguments[0])
        else:
            getattr(client, command)(f"doc:{name}", *arguments)

    any_patient.flush({"pattern": "doc:*", **rule})

    assert list(client.scan_iter()) == [b"doc:good"]
    assert any_patient.kept().keys() == {b"doc:bad"}


def test_a_value_too_long_to_be_read_and_a_key_too_large_are_left_and_counted(
    any_patient: Surgery,
) -> None:
    client = any_patient.client()
    client.set("doc:long", "{" * 5000)
    client.rpush("doc:large", *(b"x" * 1000 for _ in range(3000)))

    steps = any_patient.flush(
        {"pattern": "doc:*", "decodes_as": "json"}, decode_at_most_bytes=4000, largest_key_mb=1
    )

    assert client.dbsize() == 2
    assert figures(steps, "too_long_to_read") == 1
    assert figures(steps, "too_large") == 1


def test_without_key_patterns_it_refuses_to_run(patient: Surgery) -> None:
    with pytest.raises(RemedyError, match="key_patterns"):
        patient.flush()


def test_a_scope_picks_one_of_the_policys_patterns_and_no_other() -> None:
    from recovery.components.redis.flush_corrupted import FlushScope, chosen_rules

    parameters = FlushCorrupted.model_validate(
        {"key_patterns": [NO_TTL, {"pattern": "vec:*", "length": 16}]}
    )

    (rule,) = chosen_rules(parameters, FlushScope(pattern="vec:*"))
    assert rule.declared.length == 16
    with pytest.raises(RemedyError, match="none of the policy's key_patterns"):
        chosen_rules(parameters, FlushScope(pattern="*"))


def test_a_rehearsal_counts_and_names_and_changes_nothing(any_patient: Surgery) -> None:
    client = any_patient.client()
    fill(client)
    client.rpush("cache:queue", json.dumps({"body": "", "headers": {}, "properties": {}}))
    before = holdings(client)

    steps = any_patient.rehearse(NO_TTL)

    assert holdings(client) == before
    assert any_patient.shelf.ids() == ()
    (planned,) = [step for step in steps if step.planned]
    assert planned.figures["keys"] == PLENTY / 10
    assert int(str(planned.figures["memory_bytes"])) > PLENTY / 10 * 40
    names = str(planned.figures["samples"]).split()
    assert len(names) == 5
    assert all(client.ttl(name) == -1 for name in names)


def test_a_celery_broker_and_our_own_keys_come_out_intact(any_patient: Surgery) -> None:
    client = any_patient.client()
    fill(client)
    app = Celery("others", broker=any_patient.url, backend=any_patient.url, set_as_current=False)
    app.conf.task_queue_max_priority = 9
    app.conf.broker_transport_options = {"queue_order_strategy": "priority"}
    for queue, priority in (("celery", 0), ("cache:jobs", 0), ("cache:jobs", 9)):
        app.send_task("a.task", queue=queue, priority=priority)
    app.backend.store_result("1", "done", "SUCCESS")
    client.persist("celery-task-meta-1")
    client.hset("unacked", "tag", "message")
    client.zadd("unacked_index", {"tag": 1})
    client.hset("recovery:recovery:1", "state", "running")
    client.set("recovery:cooldown:redis/default", "1")
    client.rpush("cache:orphaned", json.dumps({"body": "", "headers": {}, "properties": {}}))
    client.rpush("cache:a-list", "of something else")
    client.set("cache:_kombu.binding.of-another-type", "1")
    held = holdings(client)
    theirs = re.compile(rb"jobs|orphaned|_kombu|^(?!cache:|session:)")
    spared = {key: value for key, value in held.items() if theirs.search(key)}
    assert b"cache:jobs\x06\x163" in spared or b"cache:jobs\x06\x169" in spared

    steps = any_patient.flush({"pattern": "*", "no_ttl": True})

    after = holdings(client)
    assert {key: after.get(key) for key in spared} == spared
    assert b"cache:a-list" not in after
    assert figures(steps, "spared") >= len(spared)
    with app.connection_for_read() as connection:
        for queue in ("celery", "cache:jobs", "cache:jobs"):
            assert connection.default_channel.basic_get(queue) is not None
    app.close()


@pytest.fixture
def opened(any_patient: Surgery) -> keyspace.Keyspace:
    from recovery.components.redis.connection import open_client

    client = open_client(any_patient.target, 5.0, as_text=False, connections=2)
    return keyspace.open_keyspace(client, Pace(1.0), 100)


def test_a_key_that_changes_after_it_was_kept_is_left(
    any_patient: Surgery, opened: keyspace.Keyspace
) -> None:
    client = any_patient.client()
    rule = Rule(KeyPattern(pattern="cache:*", no_ttl=True), 1000)
    names = [b"cache:same", b"cache:value", b"cache:ttl", b"cache:type"]
    for name in names:
        client.set(name, "1")
    records = opened.dump(rule, opened.judge(rule, names))
    client.append("cache:value", "2")
    client.expire("cache:ttl", 100)
    client.delete("cache:type")
    client.rpush("cache:type", "1")

    answers = opened.unlink(records)

    assert list(answers) == [REMOVED, CHANGED, CHANGED, CHANGED]
    assert client.exists(*names) == 3


def test_a_key_that_is_mended_after_it_was_found_is_not_even_kept(
    any_patient: Surgery, opened: keyspace.Keyspace
) -> None:
    client = any_patient.client()
    no_ttl = Rule(KeyPattern(pattern="a:*", no_ttl=True), 1000)
    as_json = Rule(KeyPattern(pattern="b:*", decodes_as="json"), 1000)
    client.mset({"a:1": "x", "b:1": "{", "b:2": "{"})
    without_ttl = opened.judge(no_ttl, [b"a:1"])
    undecodable = [
        suspect._replace(digest=keyspace.digest(b"{"))
        for suspect in opened.judge(as_json, [b"b:1", b"b:2"])
    ]
    client.expire("a:1", 100)
    client.set("b:1", "{}")

    assert opened.dump(no_ttl, without_ttl) == []
    assert [record.key for record in opened.dump(as_json, undecodable)] == [b"b:2"]


def test_keys_written_all_the_time_are_never_lost(any_patient: Surgery) -> None:
    client, writer = any_patient.client(), any_patient.client()
    fill(client, 2000)
    stop, counted = threading.Event(), dict.fromkeys(range(0, 200, 10), 0)

    def write() -> None:
        while not stop.is_set():
            for number in counted:
                writer.append(f"cache:{number}", "!")
                counted[number] += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        any_patient.flush(NO_TTL)
    except StillUnhealthy:
        pass
    finally:
        stop.set()
        thread.join()

    for number, times in counted.items():
        name = f"cache:{number}".encode()
        assert times == exclamations(any_patient, client, name)
    writer.close()


def exclamations(patient: Surgery, client: redis.Redis, name: bytes) -> int:
    """How often the writer's mark stands in the key and in everything that was kept of it."""
    from recovery.components.redis import archive

    total = (client.get(name) or b"").count(b"!")
    path = patient.shelf.directory / "flush" / archive.FILE
    for block in archive.blocks(path):
        assert block.fate is not None
        for place, record in enumerate(block.records):
            if record.key == name and block.fate[place] == archive.TAKEN:
                client.restore("exam", 0, record.dump, replace=True)
                total += client.get("exam").count(b"!")
    return total


def test_where_nothing_more_can_be_kept_nothing_more_is_removed(patient: Surgery) -> None:
    client = patient.client()
    pipe = client.pipeline(transaction=False)
    for number in range(6000):
        pipe.set(f"cache:{number}", bytes(str(number), "ascii") * 30)
    pipe.execute()
    before = {record.key: record.dump for record in everything(client)}
    patient.shelf = replace(patient.shelf, budget_bytes=120_000)

    with pytest.raises(NothingKept, match=r"no room .* of \d+ found are gone"):
        patient.flush(NO_TTL)

    left = {record.key: record.dump for record in everything(client)}
    kept = {key: record.dump for key, record in patient.kept().items()}
    assert left
    assert kept
    assert left | kept == before
    assert not left.keys() & kept.keys()


def everything(client: redis.Redis) -> list[keyspace.Record]:
    keys = list(client.scan_iter(count=1000))
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.dump(key)
    return [keyspace.Record(k, -1, d) for k, d in zip(keys, pipe.execute(), strict=True)]


def test_keys_that_come_back_corrupted_are_said_to_remain(patient: Surgery) -> None:
    client, other = patient.client(), patient.client()
    fill(client)
    stop = threading.Event()

    def spoil() -> None:
        while not stop.is_set():
            other.set("cache:0", "again")

    thread = threading.Thread(target=spoil)
    thread.start()
    try:
        with pytest.raises(StillUnhealthy, match="1 keys are corrupted again"):
            patient.flush(NO_TTL)
    finally:
        stop.set()
        thread.join()
    assert figures(patient.journals["flush"].steps, "still_corrupted") == 1


def test_a_full_server_can_be_flushed(patient: Surgery) -> None:
    client = patient.client()
    fill(client)
    client.config_set("maxmemory", client.info("memory")["used_memory"])
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        until(lambda: client.set("one", "more" * 100) and None, what="the server is full")

    patient.flush(NO_TTL)

    assert len(patient.kept()) == PLENTY / 10


def test_a_user_who_could_not_restore_may_not_flush(patient: Surgery) -> None:
    client = patient.client()
    fill(client, 100)
    client.execute_command("ACL SETUSER half on >pw ~* &* +@all -restore")
    patient.target = type(patient.target).model_validate(
        {"url": patient.url, "username": "half", "password": "pw"}
    )

    with pytest.raises(TargetRefused, match="RESTORE"):
        patient.flush(NO_TTL)

    assert client.dbsize() == 200
    assert patient.shelf.ids() == ()

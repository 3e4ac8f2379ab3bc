"""The undo of a flush: every value and expiry comes back, and nothing newer is run over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recovery.components.redis import archive, spared
from recovery.errors import NothingKept, NotKept, RemedyError, WouldOverwrite
from tests.components.redis.flushing import NO_TTL, Surgery, figures, holdings
from tests.waiting import until

BYTES = st.binary(max_size=60)
MANY = st.binary(min_size=1, max_size=12)
FLOATS = st.floats(allow_nan=False, width=32)

VALUES = st.one_of(
    st.tuples(st.just("set"), BYTES | st.integers().map(str).map(str.encode)),
    st.tuples(st.just("set"), st.binary(min_size=1000, max_size=3000)),
    st.tuples(st.just("rpush"), st.lists(BYTES, min_size=1, max_size=40)),
    st.tuples(st.just("sadd"), st.sets(BYTES, min_size=1, max_size=200)),
    st.tuples(st.just("sadd"), st.sets(st.integers(-(2**40), 2**40), min_size=1, max_size=40)),
    st.tuples(st.just("hset"), st.dictionaries(BYTES, BYTES, min_size=1, max_size=200)),
    st.tuples(st.just("zadd"), st.dictionaries(BYTES, FLOATS, min_size=1, max_size=200)),
    st.tuples(
        st.just("xadd"),
        st.lists(st.dictionaries(MANY, BYTES, min_size=1, max_size=4), min_size=1, max_size=8),
    ),
    st.tuples(st.just("pfadd"), st.sets(MANY, min_size=1, max_size=40)),
)
NAMES = st.binary(min_size=1, max_size=30).filter(
    lambda name: not spared.is_spared(b"any:" + name, b"recovery:")
)
KEYSPACE = st.dictionaries(
    NAMES,
    st.tuples(VALUES, st.none() | st.integers(60_000, 10**9)),
    min_size=1,
    max_size=12,
)
# Whatever type a key has, it breaks one of these.
EVERYTHING = (
    {"pattern": "any:*", "type": "stream"},
    {"pattern": "any:*", "type": "string"},
)


def write(client: redis.Redis, key: bytes, value: tuple[str, Any], ttl: int | None) -> None:
    command, content = value
    if command in ("hset", "zadd"):
        getattr(client, command)(key, mapping=content)
    elif command == "xadd":
        for fields in content:
            client.xadd(key, fields)
    elif command == "set":
        client.set(key, content)
    else:
        getattr(client, command)(key, *content)
    if ttl is not None:
        client.pexpire(key, ttl)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(KEYSPACE)
def test_every_value_of_every_type_comes_back_with_its_expiry(
    any_patient: Surgery, keyspace: dict[bytes, tuple[tuple[str, Any], int | None]]
) -> None:
    client = any_patient.client()
    client.flushall()
    for name, (value, ttl) in keyspace.items():
        write(client, b"any:" + name, value, ttl)
    before, dumps = holdings(client), ordered_dumps(client)
    run = f"flush-{uuid4()}"

    any_patient.flush(*EVERYTHING, run=run)
    assert client.dbsize() == 0
    any_patient.undo(run)

    assert holdings(client) == before
    assert ordered_dumps(client) == dumps
    client.close()


def ordered_dumps(client: redis.Redis) -> dict[bytes, bytes | None]:
    """The dumps of all but sets and hashes, which have no order of their own."""
    kinds = {key: client.type(key) for key in client.scan_iter()}
    return {key: client.dump(key) for key, kind in kinds.items() if kind not in (b"set", b"hash")}


def test_a_key_whose_time_has_passed_meanwhile_is_not_brought_back(any_patient: Surgery) -> None:
    client = any_patient.client()
    client.set("cache:short", "a", px=300)
    client.set("cache:long", "b", ex=1000)
    any_patient.flush({"pattern": "cache:*", "type": "hash"})
    short = any_patient.kept()[b"cache:short"]
    until(lambda: now_ms(client) > short.expires_ms, what="its time has passed")

    steps = any_patient.undo()

    assert list(client.scan_iter()) == [b"cache:long"]
    assert figures(steps, "expired") == 1


def now_ms(client: redis.Redis) -> int:
    seconds, micros = client.time()
    return int(seconds * 1000 + micros // 1000)


def test_newer_data_is_not_run_over_and_its_number_is_said(any_patient: Surgery) -> None:
    client = any_patient.client()
    client.mset({f"cache:{number}": "old" for number in range(10)})
    any_patient.flush(NO_TTL)
    client.mset({"cache:1": "new", "cache:2": "new"})

    with pytest.raises(WouldOverwrite, match="2 of the keys"):
        any_patient.undo()

    assert client.dbsize() == 2
    assert client.get("cache:1") == b"new"


def test_overwriting_keeps_the_newer_data_and_the_undo_of_the_undo_brings_it_back(
    any_patient: Surgery,
) -> None:
    client = any_patient.client()
    client.mset({f"cache:{number}": "old" for number in range(10)})
    before = holdings(client)
    any_patient.flush(NO_TTL)
    client.set("cache:1", "new", ex=1000)
    client.rpush("cache:2", "new")
    newer = holdings(client)

    any_patient.undo(overwrite=True)
    assert holdings(client) == before
    with pytest.raises(WouldOverwrite):
        any_patient.undo("undo", run="second")
    any_patient.undo("undo", run="second", overwrite=True)

    assert {key: value for key, value in holdings(client).items() if key in newer} == newer
    assert any_patient.kept("second").keys() == newer.keys()


def test_newer_data_that_cannot_be_kept_is_not_replaced(patient: Surgery) -> None:
    client = patient.client()
    client.set("cache:1", "old")
    patient.flush(NO_TTL)
    client.set("cache:1", bytes(range(256)) * 100)
    patient.shelf = replace(patient.shelf, budget_bytes=1)

    with pytest.raises(NothingKept):
        patient.undo(overwrite=True)

    assert client.strlen("cache:1") == 25_600


def test_what_is_back_already_is_no_newer_data(patient: Surgery) -> None:
    """Sets and hashes come back in another inner order, and are the same nevertheless."""
    client = patient.client()
    client.sadd("cache:set", *(f"member {number}" for number in range(2000)))
    client.hset("cache:hash", mapping={f"field {number}": number for number in range(2000)})
    patient.flush(NO_TTL)
    patient.undo()

    steps = patient.undo()

    assert figures(steps, "same") == 2
    client.srem("cache:set", "member 7")
    client.sadd("cache:set", "another")
    with pytest.raises(WouldOverwrite, match="1 of the keys"):
        patient.undo()
    assert client.dbsize() == 2


def test_a_server_without_memory_for_them_says_so_and_the_undo_may_be_repeated(
    patient: Surgery,
) -> None:
    client = patient.client()
    for number in range(200):
        client.rpush(f"cache:{number}", *(str(item) * 20 for item in range(500)))
    before = holdings(client)
    patient.flush(NO_TTL)
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 500_000)

    with pytest.raises(RemedyError, match="maxmemory"):
        patient.undo()
    client.config_set("maxmemory", 0)
    patient.undo()

    assert holdings(client) == before


def test_an_archive_that_is_gone_is_named(patient: Surgery) -> None:
    patient.client().set("cache:1", "old")
    patient.flush(NO_TTL)
    Path(patient.shelf.directory / "flush" / archive.FILE).unlink()

    with pytest.raises(NotKept, match="archive"):
        patient.undo()

"""A flush and its undo killed with SIGKILL wherever they are: no key is lost, all come back."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable
from typing import Any

import pytest
import redis

from recovery.components.redis import finding
from tests.components.redis.flushing import NO_TTL, Surgery, holdings

pytestmark = pytest.mark.kill

KEYS = 4000
FLUSH_KILLS = 60
UNDO_KILLS = 25

fork = multiprocessing.get_context("fork")


def fill(client: redis.Redis) -> None:
    pipe = client.pipeline(transaction=False)
    for number in range(KEYS):
        pipe.set(f"cache:{number}", str(number) * 10, ex=None if number % 4 else 10_000)
    for number in range(20):
        pipe.hset(f"cache:hash:{number}", mapping={str(field): field for field in range(300)})
        pipe.sadd(f"cache:set:{number}", *(f"member {member}" for member in range(300)))
        pipe.rpush(f"cache:list:{number}", *range(500))
        pipe.xadd(f"cache:stream:{number}", {"field": number})
    pipe.execute()


def kill_in_the_middle(act: Callable[[], Any], within: float) -> bool:
    """Run in a child process and kill it some time later; False where it was done by then."""
    begun = fork.Event()

    def child() -> None:
        begun.set()
        act()

    process = fork.Process(target=child)
    process.start()
    begun.wait()
    process.join(random.uniform(0, within))
    was_killed = process.is_alive()
    process.kill()
    process.join()
    assert was_killed or process.exitcode == 0
    return was_killed


def dumps(client: redis.Redis) -> dict[bytes, bytes]:
    keys = list(client.scan_iter(count=1000))
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.dump(key)
    return dict(zip(keys, pipe.execute(), strict=True))


def test_a_flush_killed_anywhere_loses_no_key_and_its_undo_brings_all_back(
    patient: Surgery, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Many small blocks, so that there are many moments between keeping and removing.
    monkeypatch.setattr(finding, "KEYS_PER_BLOCK", 20)
    client = patient.client()
    fill(client)
    whole, before = dumps(client), holdings(client)
    kills = 0

    while kills < FLUSH_KILLS:
        killed = kill_in_the_middle(
            lambda: patient.flush(NO_TTL, scan_count=20, server_share=0.5), 0.1
        )
        kills += killed
        left, kept = dumps(client), patient.kept()
        lost = [k for k in whole if left.get(k) != whole[k] and k not in kept]
        assert not lost, f"after kill {kills}: {len(lost)} keys lost, {lost[:3]}"
        assert all(kept[key].dump == whole[key] for key in kept)
        if not killed:
            # It came to its end: begin anew with what it removed.
            patient.undo(run=f"undo-{kills}")
            patient.shelf.discard(patient.shelf.open("flush"))
            whole = dumps(client)

    patient.flush(NO_TTL)
    assert not [key for key in client.scan_iter("cache:*") if client.ttl(key) == -1]
    patient.undo()
    assert holdings(client) == before


def test_an_undo_killed_anywhere_is_finished_by_the_next(patient: Surgery) -> None:
    client = patient.client()
    fill(client)
    before = holdings(client)
    patient.flush(NO_TTL)
    newer = {f"cache:{number}".encode(): b"newer" for number in range(1, KEYS, 40)}
    newer = {key: value for key, value in newer.items() if not client.exists(key)}
    client.mset(newer)
    kills = 0

    while kills < UNDO_KILLS:
        killed = kill_in_the_middle(lambda: patient.undo(overwrite=True), 0.25)
        kills += killed
        if not killed:
            assert holdings(client) == before
            client.mset(newer)

    patient.undo(overwrite=True)
    assert holdings(client) == before
    patient.undo("undo", run="undo-of-the-undo", overwrite=True)
    assert {key: client.get(key) for key in newer} == newer

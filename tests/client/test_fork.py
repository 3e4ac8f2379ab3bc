"""Applications that fork after they adopted the helper, as every pre-forking server does."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.fleet import ROOT
from tests.servers import RedisServer

Tell = Callable[[], None]


@contextmanager
def forking(kind: str, target: RedisServer, control: RedisServer) -> Iterator[queue.Queue[Any]]:
    """The lines that ``tests.client.forking`` and its children say."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.client.forking", kind, target.url],
        cwd=ROOT,
        env={**os.environ, "RECOVERY_REDIS_URL": control.url},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    said: queue.Queue[Any] = queue.Queue()
    lines = process.stdout
    reader = threading.Thread(target=lambda: [said.put(json.loads(line)) for line in lines])
    reader.start()
    try:
        yield said
    finally:
        os.killpg(process.pid, 9)
        process.wait()
        reader.join()
        lines.close()


def test_parent_and_child_are_both_renewed_each_by_one_thread_of_its_own(
    redis_server: RedisServer, control_redis: RedisServer, tell: Tell
) -> None:
    with forking("servers", redis_server, control_redis) as said:
        ready = [said.get(timeout=30) for _ in range(2)]
        tell()
        renewed = [said.get(timeout=30) for _ in range(2)]

    assert all(line["ready"] for line in ready)
    assert {line["pid"] for line in renewed} == {line["pid"] for line in ready}
    assert [line["listeners"] for line in renewed] == [1, 1]
    assert [line["may"] for line in renewed] == [True, True]


def test_a_child_of_a_fork_in_the_middle_of_a_renewal_meets_no_locked_pool(
    redis_server: RedisServer, control_redis: RedisServer, tell: Tell
) -> None:
    with forking("during", redis_server, control_redis) as said:
        assert said.get(timeout=30)["ready"]
        tell()
        line = said.get(timeout=30)

    assert line["status"] == 0

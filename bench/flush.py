"""``redis.flush_corrupted`` beside a bare SCAN + UNLINK loop that is told which keys are corrupt.

Both clear a tenth of the same keys from two servers filled alike, in turns, while another process
GETs keys of the same server. Ours looks for the keys itself, keeps each on the disk before it is
removed, and looks again; the loop does none of that. Its pages are as large as ours.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from uuid import uuid4

import redis
import structlog

from bench import report, servers

WALL_LIMIT = 2.5
GET_LIMIT = 2.0
ROUNDS = 3
PATTERN = "cache:*"
GET_PAUSE = 0.0005
_FILL = """
local value = string.rep('x', 80)
for i = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  if i % 10 == 0 then redis.call('SET', 'cache:' .. i, value .. i)
  elseif ARGV[3] == '1' then redis.call('SET', 'cache:' .. i, value .. i, 'EX', 864000) end
end
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=1_000_000, help="keys, a tenth of them corrupt")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each, in turns")
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    walls: dict[str, list[float]] = {"ours": [], "baseline": []}
    gets: dict[str, list[float]] = {"ours": [], "baseline": []}
    with (
        servers.folder() as where,
        servers.redis_server(where) as ours,
        servers.redis_server(where) as baseline,
        servers.redis_server(where) as control,
    ):
        for number in range(chosen.rounds):
            for url in (ours, baseline):
                fill(url, chosen.n, whole=number == 0)
            for name, act in (
                ("baseline", lambda: scan_and_unlink(baseline)),
                ("ours", lambda: flush(ours, control, where)),
            ):
                url = ours if name == "ours" else baseline
                wall, p99 = measured(url, chosen.n, act)
                walls[name].append(wall)
                gets[name].append(p99)
                check(url, chosen.n)
    wall = {name: round(statistics.median(values), 3) for name, values in walls.items()}
    get = {name: round(statistics.median(values), 3) for name, values in gets.items()}
    # In pairs: what else the machine does changes from round to round.
    ratio, get_ratio = median_ratio(walls), median_ratio(gets)
    print(f"wall, s           {walls}")
    print(f"p99 of GET, ms    {gets}")
    report.finish(
        "flush",
        n=chosen.n,
        unit="s, ms",
        ours={"wall": wall["ours"], "get_p99": get["ours"]},
        baseline={"wall": wall["baseline"], "get_p99": get["baseline"]},
        ratio={"wall": round(ratio, 3), "get_p99": round(get_ratio, 3)},
        limit={"wall": WALL_LIMIT, "get_p99": GET_LIMIT},
        ok=ratio <= WALL_LIMIT and get_ratio <= GET_LIMIT,
    )


def median_ratio(values: dict[str, list[float]]) -> float:
    pairs = zip(values["ours"], values["baseline"], strict=True)
    return statistics.median(ours / baseline for ours, baseline in pairs)


def fill(url: str, count: int, *, whole: bool) -> None:
    """All keys, or only the corrupt ones, which have no TTL."""
    script = redis.Redis.from_url(url).register_script(_FILL)
    for first in range(0, count, 10_000):
        script(args=[first, min(first + 9_999, count - 1), int(whole)])


def measured(url: str, count: int, act: Callable[[], None]) -> tuple[float, float]:
    """Seconds that it took, and the 99th percentile of a GET meanwhile in milliseconds."""
    with getting(url, count) as pipe:
        pipe.recv()
        began = time.perf_counter()
        act()
        wall = time.perf_counter() - began
        pipe.send("stop")
        p99: float = pipe.recv()
    return wall, p99


@contextlib.contextmanager
def getting(url: str, count: int) -> Iterator[Connection]:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_get, args=(url, count, there))
    process.start()
    try:
        yield here
    finally:
        process.join(10)
        process.kill()


def _get(url: str, count: int, pipe: Connection) -> None:
    client = redis.Redis.from_url(url)
    client.ping()
    pipe.send("ready")
    spent = []
    while not pipe.poll():
        key = f"cache:{random.randrange(count)}"
        began = time.perf_counter()
        client.get(key)
        spent.append((time.perf_counter() - began) * 1000)
        time.sleep(GET_PAUSE)
    pipe.send(report.percentile(spent, 0.99))


def scan_and_unlink(url: str) -> None:
    from recovery.components.redis.flush_corrupted import FlushCorrupted

    client = redis.Redis.from_url(url)
    count = FlushCorrupted().scan_count
    cursor = 0
    while True:
        cursor, keys = client.scan(cursor, match=PATTERN, count=count)
        corrupt = [key for key in keys if key.endswith(b"0")]
        if corrupt:
            client.unlink(*corrupt)
        if cursor == 0:
            return


def flush(url: str, control_url: str, where: Path) -> None:
    from recovery.components.redis.flush_corrupted import (
        FlushCorrupted,
        FlushScope,
        flush_corrupted,
    )
    from recovery.components.redis.target import RedisTarget
    from recovery.controlplane import ControlPlane
    from recovery.events import TargetRef
    from recovery.journal import Deadline, RecordingJournal
    from recovery.keeping import Shelf

    identity = str(uuid4())
    kept = Shelf(directory=where / "kept").keep(identity)
    journal = RecordingJournal(
        ControlPlane(redis.Redis.from_url(control_url, decode_responses=True)),
        identity,
        TargetRef("redis"),
        deadline=Deadline(600),
        keeper=lambda: kept,
        scope=FlushScope(),
    )
    parameters = FlushCorrupted.model_validate(
        {"key_patterns": [{"pattern": PATTERN, "no_ttl": True}]}
    )
    if flush_corrupted.remedy is None:
        raise RuntimeError("this release cannot flush")
    flush_corrupted.remedy(RedisTarget(url=url), parameters, journal)
    kept.close()
    print("  ".join(f"{name} {value}" for name, value in journal.steps[-1].figures.items()))


def check(url: str, count: int) -> None:
    left = redis.Redis.from_url(url).dbsize()
    if left != count - count // 10:
        raise RuntimeError(f"{left} keys are left of {count}")


if __name__ == "__main__":
    main()

"""What ``recovery.inference`` costs while all is well, and what a dead Open WebUI costs callers.

The overhead is put beside plain httpx to the same server, in turns, by both clients.
The failover is seen by concurrent callers who ask all the time while the server's process is killed
(or stopped, so that it accepts and says nothing): requests lost, the longest time in which nobody
was answered, and the time until the first answer by the other road. Last, how many events many
failing requests send.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import redis

import recovery.client
from bench import report, servers
from recovery import routing
from recovery.client.listener import LISTENER
from recovery.controlplane import ControlPlane
from recovery.encryption import encrypt, new_key
from recovery.inference import AsyncClient, Client, NoAnswer, Road

TARGET = "openwebui/default"
QUESTION = "What is the capital of France?"
TOKEN = "bench-token"  # noqa: S105 - of a server that asks nobody
OVERHEAD_LIMIT = 1.10
FAILOVER_LIMIT = 5.0
ANSWER_SECONDS = 0.02
WARM_UP = 200


@contextmanager
def model(
    seconds: float = 0.0, port: int | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server in a process of its own; its URL and the process."""
    port = port or servers.free_port()
    command = [sys.executable, "-m", "bench.model_app", str(port), str(seconds)]
    process = subprocess.Popen(command, cwd=servers.ROOT)
    url = f"http://127.0.0.1:{port}"
    try:
        servers.wait_for(lambda: is_up(url))
        yield url, process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).is_success
    except httpx.HTTPError:
        return False


class Stage:
    """A control plane that names both roads."""

    def __init__(self, redis_url: str) -> None:
        self.control = ControlPlane(redis.Redis.from_url(redis_url, decode_responses=True))

    def route(self, openwebui: str, direct: str) -> None:
        routing.change(
            self.control,
            TARGET,
            road="openwebui",
            base_url=openwebui,
            model="bench",
            primary_model="bench",
            token=encrypt(TOKEN),
            token_kind="api_key",  # noqa: S106 - a kind
            direct={
                "provider": "anthropic",
                "base_url": direct,
                "model": "bench",
                "api_key_env": "BENCH_API_KEY",
            },
        )
        servers.wait_for(lambda: self.heard() == openwebui)

    def heard(self) -> str:
        text = LISTENER.routes.texts.get(TARGET)
        return json.loads(text)["base_url"] if text else ""

    def events(self) -> int:
        return int(self.control.redis.llen("dispatch"))


def overhead(rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of one answer: plain httpx and ours, in turns."""
    with model() as (url, _), model() as (other, _):
        STAGE.route(url, other)
        return {
            "sync": sync_overhead(url, rounds),
            "async": asyncio.run(async_overhead(url, rounds)),
        }


def asked(url: str) -> dict[str, Any]:
    return {
        "url": f"{url}/api/chat/completions",
        "json": {"model": "bench", "messages": [{"role": "user", "content": QUESTION}]},
        "headers": {"Authorization": f"Bearer {TOKEN}"},
    }


def text_of(response: httpx.Response) -> str:
    return str(response.json()["choices"][0]["message"]["content"])


def sync_overhead(url: str, rounds: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {"plain": [], "ours": []}
    with httpx.Client() as plain, Client() as ours:
        ways = {
            "plain": lambda: text_of(plain.post(**asked(url))),
            "ours": lambda: ours.chat(QUESTION).text,
        }
        for number in range(rounds + WARM_UP):
            # Whoever comes first in a round has a colder processor.
            for name in sorted(ways, reverse=bool(number % 2)):
                began = time.perf_counter()
                ways[name]()
                if number >= WARM_UP:
                    taken[name].append((time.perf_counter() - began) * 1e3)
    return compared(taken)


async def async_overhead(url: str, rounds: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {"plain": [], "ours": []}

    async def by_httpx() -> str:
        return text_of(await plain.post(**asked(url)))

    async def by_us() -> str:
        return (await ours.chat(QUESTION)).text

    async with httpx.AsyncClient() as plain, AsyncClient() as ours:
        ways = {"plain": by_httpx, "ours": by_us}
        for number in range(rounds + WARM_UP):
            for name in sorted(ways, reverse=bool(number % 2)):
                began = time.perf_counter()
                await ways[name]()
                if number >= WARM_UP:
                    taken[name].append((time.perf_counter() - began) * 1e3)
    return compared(taken)


def compared(taken: dict[str, list[float]]) -> dict[str, float]:
    plain, ours = report.summary(taken["plain"]), report.summary(taken["ours"])
    return {
        "plain_p50": plain["p50"],
        "plain_p95": plain["p95"],
        "ours_p50": ours["p50"],
        "ours_p95": ours["p95"],
        "ratio_p50": round(ours["p50"] / plain["p50"], 3),
    }


@dataclass
class Seen:
    """By all callers of one run: when each answer came and how, and what was lost."""

    answered: list[tuple[float, Road]] = field(default_factory=list)
    lost: int = 0

    def until_first(self, broken: float) -> float:
        """Seconds from the failure to the first answer by the other road."""
        return min(at for at, road in self.answered if road is Road.DIRECT) - broken

    def longest_gap(self, broken: float) -> float:
        """Seconds, from the failure on, in which nobody was answered."""
        times = [broken, *sorted(at for at, _ in self.answered if at >= broken)]
        return max(after - before for before, after in itertools.pairwise(times))


async def failover(callers: int, number: signal.Signals) -> tuple[Seen, float]:
    """One run: all callers ask, the server's process gets the signal, and they go on asking."""
    seen, stop = Seen(), asyncio.Event()
    with model(ANSWER_SECONDS) as (url, process):
        STAGE.route(url, DIRECT)
        async with AsyncClient() as client:

            async def ask() -> None:
                while not stop.is_set():
                    try:
                        answer = await client.chat(QUESTION)
                    except NoAnswer:
                        seen.lost += 1
                    else:
                        seen.answered.append((time.monotonic(), answer.road))

            tasks = [asyncio.create_task(ask()) for _ in range(callers)]
            await until(lambda: len(seen.answered) > 2 * callers)
            process.send_signal(number)
            broken = time.monotonic()
            await until(lambda: sum(road is Road.DIRECT for _, road in seen.answered) > 2 * callers)
            stop.set()
            await asyncio.gather(*tasks)
    return seen, broken


async def until(condition: Any) -> None:
    ends = time.monotonic() + 60
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError("not within 60 s")
        await asyncio.sleep(0.01)


def failovers(runs: int, callers: int, number: signal.Signals) -> dict[str, float]:
    first, gaps, lost, answered = [], [], 0, 0
    for _ in range(runs):
        seen, broken = asyncio.run(failover(callers, number))
        first.append(seen.until_first(broken))
        gaps.append(seen.longest_gap(broken))
        lost += seen.lost
        answered += len(seen.answered)
    return {
        "runs": runs,
        "p50": round(report.percentile(first, 0.5), 3),
        "p95": round(report.percentile(first, 0.95), 3),
        "max": round(max(first), 3),
        "longest_gap": round(max(gaps), 3),
        "answered": answered,
        "lost": lost,
    }


def storm(requests: int) -> int:
    """How many events so many failing requests send, with both roads dead."""
    STAGE.control.redis.delete("dispatch")
    recovery.client.stop()
    recovery.client.start(REDIS)
    LISTENER.want_routes()
    STAGE.route(
        f"http://127.0.0.1:{servers.free_port()}", f"http://127.0.0.1:{servers.free_port()}"
    )
    with Client() as client, ThreadPoolExecutor(8) as callers:

        def fails(_: int) -> bool:
            try:
                client.chat(QUESTION)
            except NoAnswer:
                return True
            return False

        if not all(callers.map(fails, range(requests))):
            raise RuntimeError("a request was answered by nobody")
    servers.wait_for(lambda: STAGE.events() > 0)
    return STAGE.events()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=2000, help="requests for the overhead")
    parser.add_argument("--runs", type=int, default=30, help="kills")
    parser.add_argument("--hangs", type=int, default=5, help="runs with a server that is stopped")
    parser.add_argument("--callers", type=int, default=50)
    parser.add_argument("--storm", type=int, default=10_000, help="failing requests")
    chosen = parser.parse_args()
    cost = overhead(chosen.n)
    for kind, figures in cost.items():
        print(f"{kind:5}  {figures} ms")
    killed = failovers(chosen.runs, chosen.callers, signal.SIGKILL)
    print(f"killed under {chosen.callers} callers   {killed} s")
    hung = failovers(chosen.hangs, chosen.callers, signal.SIGSTOP)
    print(f"stopped under {chosen.callers} callers  {hung} s")
    told = storm(chosen.storm)
    print(f"{chosen.storm} failing requests: {told} event(s)")
    worst = max(figures["ratio_p50"] for figures in cost.values())
    report.finish(
        "inference",
        n=chosen.n,
        unit="ms; failover: s",
        ours={
            "sync_p50": cost["sync"]["ours_p50"],
            "async_p50": cost["async"]["ours_p50"],
            "killed_p50": killed["p50"],
            "killed_max": killed["max"],
            "hung_max": hung["max"],
            "longest_gap": max(killed["longest_gap"], hung["longest_gap"]),
            "lost": killed["lost"] + hung["lost"],
            "events": told,
        },
        baseline={"sync_p50": cost["sync"]["plain_p50"], "async_p50": cost["async"]["plain_p50"]},
        ratio=worst,
        limit={"overhead": OVERHEAD_LIMIT, "failover_s": FAILOVER_LIMIT, "lost": 0, "events": 1},
        ok=worst <= OVERHEAD_LIMIT
        and max(killed["max"], hung["max"]) < FAILOVER_LIMIT
        and killed["lost"] + hung["lost"] == 0
        and told == 1,
    )


if __name__ == "__main__":
    os.environ["RECOVERY_SECRET_KEY"] = new_key()
    os.environ["BENCH_API_KEY"] = "bench-key"
    with servers.folder() as where, servers.redis_server(where) as REDIS, model() as (DIRECT, _):
        os.environ["RECOVERY_REDIS_URL"] = REDIS
        STAGE = Stage(REDIS)
        recovery.client.start(REDIS)
        LISTENER.want_routes()
        main()

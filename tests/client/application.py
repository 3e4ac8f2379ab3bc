"""An application as its users write it, in a process of its own: ``application KIND TARGET_URL``.

It GETs and SETs through a protected client and answers each line on stdin with one line of JSON.
KIND is ``threads``, ``blocking`` or ``asyncio``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import redis
import redis.asyncio

import recovery.client

THREADS = 4
IDLE = 8
NAME = "application"


@dataclass
class Load:
    """What the workers of one process have done. Nothing is retried, so that nothing is hidden."""

    done: list[int] = field(default_factory=lambda: [0] * THREADS)
    errors: list[str] = field(default_factory=list)

    def say(self) -> None:
        names = [thread.name for thread in threading.enumerate()]
        listeners = names.count("recovery-client")
        said = {"done": self.done, "errors": self.errors, "listeners": listeners}
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()

    def failed(self, error: redis.RedisError) -> None:
        self.errors.append(f"{type(error).__name__}: {error}")


def commands() -> Iterator[str]:
    for line in sys.stdin:
        yield line.strip()


def run_threads(client: redis.Redis, load: Load) -> None:
    pool = client.connection_pool
    held = [pool.get_connection() for _ in range(THREADS + IDLE)]
    for connection in held:
        pool.release(connection)

    def work(number: int) -> None:
        while True:
            try:
                client.set(f"key:{number}", load.done[number])
                client.get(f"key:{number}")
            except redis.RedisError as error:
                load.failed(error)
            load.done[number] += 1

    for number in range(THREADS):
        threading.Thread(target=work, args=(number,), daemon=True).start()
    for _ in commands():
        load.say()


async def run_tasks(url: str, load: Load) -> None:
    client: Any = redis.asyncio.Redis.from_url(url, client_name=NAME)
    recovery.client.protect(client, target="redis/default", jitter=0.1)
    pool = client.connection_pool
    held = [await pool.get_connection() for _ in range(THREADS + IDLE)]
    for connection in held:
        await pool.release(connection)

    async def work(number: int) -> None:
        while True:
            try:
                await client.set(f"key:{number}", load.done[number])
                await client.get(f"key:{number}")
            except redis.RedisError as error:
                load.failed(error)
            load.done[number] += 1

    tasks = [asyncio.create_task(work(number)) for number in range(THREADS)]
    reading = commands()
    while await asyncio.to_thread(next, reading, None) is not None:
        load.say()
    for task in tasks:
        task.cancel()


def main() -> None:
    kind, url = sys.argv[1:]
    load = Load()
    if kind == "asyncio":
        asyncio.run(run_tasks(url, load))
        return
    client = redis.Redis.from_url(url, client_name=NAME)
    if kind == "blocking":
        pool = redis.BlockingConnectionPool.from_url(url, client_name=NAME, max_connections=20)
        client = redis.Redis(connection_pool=pool)
    run_threads(recovery.client.protect(client, target="redis/default", jitter=0.1), load)


if __name__ == "__main__":
    main()

"""The baseline: a bare Celery application in which one task sends another, nothing else."""

from __future__ import annotations

import os
import time

import redis
from celery import Celery

app = Celery("bare", broker=os.environ["BENCH_REDIS"], backend=os.environ["BENCH_REDIS"])
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
)
store = redis.Redis.from_url(os.environ["BENCH_REDIS"])


@app.task(name="bare.first")
def first(identity: str) -> None:
    app.send_task("bare.second", kwargs={"identity": identity}, queue="bare2")


@app.task(name="bare.second")
def second(identity: str) -> None:
    began = time.monotonic()
    store.rpush(f"bench:{identity}", began)


@app.task(name="bare.nothing")
def nothing() -> None:
    """As little as a task can do."""

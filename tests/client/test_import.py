"""What importing the helper costs an application."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.fleet import ROOT
from tests.servers import RedisServer

HEAVY = {"celery", "kombu", "pydantic", "yaml", "redis", "asyncio", "structlog", "billiard"}


def test_the_import_brings_no_library_along_and_starts_nothing() -> None:
    program = (
        "import json, sys, threading, recovery.client, recovery.degraded\n"
        "print(json.dumps([sorted(sys.modules), threading.active_count()]))"
    )
    said = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True)
    modules, threads = json.loads(said)

    assert not HEAVY & set(modules)
    assert threads == 1


def test_protecting_a_client_brings_no_celery_along(control_redis: RedisServer) -> None:
    program = (
        "import sys, redis, recovery.client, recovery.degraded\n"
        "recovery.client.protect(redis.Redis(port=1), target='redis/cache')\n"
        f"assert recovery.client.start({control_redis.url!r}, wait=20)\n"
        "assert recovery.degraded.may_use('anything')\n"
        "print('celery' in sys.modules, 'pydantic' in sys.modules)"
    )
    environ = {**os.environ, "RECOVERY_REDIS_URL": control_redis.url}
    said = subprocess.check_output(
        [sys.executable, "-c", program], cwd=ROOT, env=environ, text=True
    )

    assert said.split() == ["False", "False"]

"""A host whose control Redis, state, logs and audit lie on the disk that is cleaned."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import Celery

from recovery.controlplane import ControlPlane
from recovery.errors import ControlPlaneUnavailable
from tests.components.system.conftest import HOST, HostStack
from tests.components.system.test_end_to_end import CLEANUP
from tests.servers import RedisServer
from tests.supervising import Supervised, supervised
from tests.waiting import until

WORKER = ("-c", "from recovery.cli import main; main()", "worker", "--beat", "--concurrency", "1")


@contextmanager
def living_on(
    disk: Path, tmp_path: Path, **sections: dict[str, Any]
) -> Iterator[tuple[HostStack, Supervised]]:
    """A worker that is ready and whose policy cleans the folder ``tmp`` of that disk."""
    for name in ("state", "log", "tmp"):
        (disk / name).mkdir()
    server = RedisServer(disk / "control", {"appendonly": "yes"}).start()
    app = Celery("test-producer", broker=server.url, set_as_current=False)
    environ = {
        **os.environ,
        "RECOVERY_CONFIG": str(tmp_path / "recovery_config.yml"),
        "RECOVERY_REDIS_URL": server.url,
        "RECOVERY_STATE_DIR": str(disk / "state"),
        "RECOVERY_HOST": HOST,
    }
    host = HostStack(ControlPlane(server.client()), app, environ, tmp_path)
    cleanup = {**CLEANUP, "cleanup_paths": [str(disk / "tmp")], "timeout_seconds": 30}
    target: dict[str, Any] = {"filesystems": [str(disk)], "watch": ["disk"]}
    host.write_policy_of({HOST: target}, cleanup, sections=sections)
    try:
        with supervised(disk / "log", *WORKER, environ=environ) as ours:
            until(lambda: "ready." in ours.said(), seconds=60, what="the worker is ready")
            yield host, ours
    finally:
        app.close()
        host.control.redis.close()
        server.stop()


def accepted(host: HostStack, failure_type: str) -> str:
    """As whoever has no answer: the event is sent again."""
    try:
        return host.trigger(failure_type)
    except ControlPlaneUnavailable:
        return ""


def cleaned(host: HostStack) -> dict[str, Any] | None:
    """The audit's entry on the disk: of this event, or of the probe's that came before it."""
    entries = host.control.redis.xrange(host.control.key("audit"))
    found = [json.loads(said["entry"]) for _, said in entries]
    return next(
        (
            one
            for one in found
            if one.get("strategy") == "disk_cleanup" and one["result"] != "refused"
        ),
        None,
    )

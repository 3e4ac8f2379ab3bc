"""Control Redis, state, logs and audit on the very disk that is full, which is cleaned anyway."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from recovery.components.system.filesystems import Usage
from recovery.controlplane import ControlPlane
from recovery.errors import ControlPlaneUnavailable
from recovery.events import Result
from tests.components.system.conftest import HOST, HostStack, Mount, fill_up
from tests.components.system.test_end_to_end import CLEANUP
from tests.servers import RedisServer
from tests.supervising import supervised
from tests.waiting import until

WORKER = ("-c", "from recovery.cli import main; main()", "worker", "--beat", "--concurrency", "1")
RESERVE_MB = 2


@pytest.mark.timeout(600)
@pytest.mark.kill
@pytest.mark.slow
def test_a_full_disk_that_holds_all_of_ours_is_cleaned_and_the_audit_tells_of_it(
    mount: Mount, tmp_path: Path
) -> None:
    full = mount(48)
    for name in ("state", "log", "tmp"):
        (full / name).mkdir()
    server = RedisServer(full / "control", {"appendonly": "yes"}).start()
    app = Celery("test-producer", broker=server.url, set_as_current=False)
    environ = {
        **os.environ,
        "RECOVERY_CONFIG": str(tmp_path / "recovery_config.yml"),
        "RECOVERY_REDIS_URL": server.url,
        "RECOVERY_STATE_DIR": str(full / "state"),
        "RECOVERY_HOST": HOST,
    }
    host = HostStack(ControlPlane(server.client()), app, environ, tmp_path)
    cleanup = {**CLEANUP, "cleanup_paths": [str(full / "tmp")], "timeout_seconds": 30}
    target: dict[str, Any] = {"filesystems": [str(full)], "watch": ["disk"]}
    failsafe = {"reserve_mb": RESERVE_MB, "interval_seconds": 1}
    host.write_policy_of({HOST: target}, cleanup, sections={"failsafe": failsafe})
    try:
        with supervised(full / "log", *WORKER, environ=environ) as ours:
            reserve = full / "state" / "reserve"
            until(reserve.exists, seconds=60, what="the guard has its reserve")
            until(lambda: "ready." in ours.said(), seconds=60, what="the worker is ready")
            fill_up(full / "tmp", 0.5)
            fill_up(full / "tmp" / "small", 0.004)

            until(lambda: accepted(host), seconds=60, what="an event is accepted")
            done = until(lambda: cleaned(host), seconds=240, what="its entry is in the audit")

            assert done["result"] == Result.RECOVERED, ours.said()
            assert Usage.of(str(full)).percent < 80
            assert "the reserve is given up" in ours.said()
            until(reserve.exists, seconds=30, what="it is taken back")
    finally:
        app.close()
        host.control.redis.close()
        server.stop()


def accepted(host: HostStack, failure_type: str = "disk_full") -> str:
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

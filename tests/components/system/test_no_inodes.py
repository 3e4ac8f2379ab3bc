"""A filesystem without inodes: from the event to the proof, also where all of ours lies on it."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from recovery.components.system.filesystems import Usage
from recovery.controlplane import ControlPlane
from recovery.events import Result
from tests.components.system.conftest import HOST, QUEUES, HostStack, Mount, fill
from tests.components.system.test_end_to_end import CLEANUP, outcome
from tests.components.system.test_full_disk import WORKER, accepted, cleaned
from tests.fleet import Fleet
from tests.servers import RedisServer
from tests.supervising import supervised
from tests.waiting import until


def use_up(folder: Path) -> int:
    """Empty files until none more can be made; how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    made = 0
    while True:
        try:
            (folder / f"session{made}").touch()
        except OSError:
            return made
        made += 1


def with_inodes(mount: Mount, count: int, mb: int = 16) -> Path:
    return mount(mb, "-t", "tmpfs", "-o", f"size={mb}m,nr_inodes={count}", "tmpfs")


def test_a_filesystem_without_inodes_is_cleaned_and_proven_on_its_own_hosts_queue(
    host: HostStack, fleet: Fleet, mount: Mount
) -> None:
    full = with_inodes(mount, 2000)
    host.write_policy(
        {"filesystems": [str(full)], "watch": ["disk"]},
        {**CLEANUP, "cleanup_paths": [str(full / "tmp")]},
    )
    precious = fill(full / "data", 0.001)
    made = use_up(full / "tmp" / "sessions")
    fleet.start(queues=QUEUES)

    record = host.recover("inode_exhaustion")

    done = outcome(record, fleet)
    assert done.result is Result.RECOVERED, fleet.logs()
    assert done.before.failure_type == "inode_exhaustion"
    assert done.after.healthy
    assert 80 < Usage.of(str(full)).inode_percent < 85
    assert precious.exists()
    left = sum(1 for _ in (full / "tmp" / "sessions").iterdir())
    manifest = Path(host.environ["RECOVERY_STATE_DIR"]) / "kept" / record.id / "removed.jsonl.gz"
    lines = gzip.decompress(manifest.read_bytes()).decode().splitlines()
    kept = sum(line.endswith('"kept"]') for line in lines)
    assert len(lines) - 2 * kept == made - left


@pytest.mark.timeout(600)
@pytest.mark.kill
@pytest.mark.slow
def test_one_that_holds_all_of_ours_is_cleaned_and_the_audit_tells_of_it(
    mount: Mount, tmp_path: Path
) -> None:
    full = with_inodes(mount, 1500, mb=48)
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
    host.write_policy_of({HOST: target}, cleanup)
    try:
        with supervised(full / "log", *WORKER, environ=environ) as ours:
            until(lambda: "ready." in ours.said(), seconds=60, what="the worker is ready")
            use_up(full / "tmp")

            until(lambda: accepted(host, "inode_exhaustion"), seconds=60, what="it is accepted")
            done = until(lambda: cleaned(host), seconds=240, what="its entry is in the audit")

            assert done["result"] == Result.RECOVERED, ours.said()
            # Ours makes files again, too.
            assert Usage.of(str(full)).inode_percent < 90
    finally:
        app.close()
        host.control.redis.close()
        server.stop()

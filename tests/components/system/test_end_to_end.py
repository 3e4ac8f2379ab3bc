"""From an event to a proven repair of this host, through real workers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from recovery import records
from recovery.components.system.filesystems import Usage
from recovery.components.system.probe import probe
from recovery.components.system.target import HostTarget
from recovery.events import Result
from tests.components.system.conftest import QUEUES, HostStack, Mount, fill, fill_up
from tests.fleet import Fleet
from tests.waiting import until

CLEANUP = {
    "name": "disk_cleanup",
    "conditions": ["disk_full", "disk_usage_high"],
    "preserve_days": 1e-9,
    "timeout_seconds": 20,
}


def outcome(record: records.Recovery, fleet: Fleet) -> Any:
    assert record.outcome is not None, fleet.logs()
    return record.outcome


def test_a_full_disk_is_cleaned_and_proven_on_its_own_hosts_queue(
    host: HostStack, fleet: Fleet, mount: Mount
) -> None:
    full = mount(16)
    host.write_policy(
        {"filesystems": [str(full)], "watch": ["disk"]},
        {**CLEANUP, "cleanup_paths": [str(full / "tmp")]},
    )
    precious = fill(full / "data", 1)
    fill_up(full / "tmp" / "deep", 1)
    fleet.start(queues=QUEUES)

    record = host.recover("disk_full")

    done = outcome(record, fleet)
    assert done.result is Result.RECOVERED, fleet.logs()
    assert done.before.failure_type == "disk_full"
    assert done.after.healthy
    assert Usage.of(str(full)).percent < 80
    assert precious.exists()
    manifest = Path(host.environ["RECOVERY_STATE_DIR"]) / "kept" / record.id / "removed.jsonl.gz"
    assert manifest.stat().st_size > 0


def test_a_disk_that_holds_nothing_old_fails_and_says_why(
    host: HostStack, fleet: Fleet, mount: Mount
) -> None:
    full = mount(16)
    host.write_policy(
        {"filesystems": [str(full)], "watch": ["disk"]},
        {**CLEANUP, "preserve_days": 1, "cleanup_paths": [str(full / "tmp")]},
    )
    files = fill_up(full / "tmp", 4)
    fleet.start(queues=QUEUES)

    done = outcome(host.recover("disk_full"), fleet)

    assert done.result is Result.FAILED
    assert done.error == "nothing_freed"
    assert all(path.exists() for path in files)


def test_a_cleanup_that_frees_too_little_is_no_success(
    host: HostStack, fleet: Fleet, mount: Mount
) -> None:
    full = mount(16)
    host.write_policy(
        {"filesystems": [str(full)], "watch": ["disk"]},
        {**CLEANUP, "cleanup_paths": [str(full / "tmp")]},
    )
    fill(full / "tmp" / "old", 2.9)
    fill_up(full / "data", 1)
    fleet.start(queues=QUEUES)

    done = outcome(host.recover("disk_full"), fleet)

    assert 80 < Usage.of(str(full)).percent < 85
    assert (done.result, done.error) == (Result.FAILED, "still_unhealthy"), done
    assert done.after.failure_type == "disk_usage_high"


HUNGRY = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (80, 500))
held = [os.open("/dev/null", 0) for _ in range(80 - len(os.listdir("/proc/self/fd")) + 1)]
print("up", flush=True)
sys.stdin.read()
"""


def test_a_process_at_its_limit_is_given_more_when_a_person_asks(
    host: HostStack, fleet: Fleet, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HUNGRY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    (tmp_path / "pid").write_text(str(process.pid))
    host.write_policy(
        {"watch": ["processes"], "processes": {"hungry": {"pidfile": str(tmp_path / "pid")}}},
        {"name": "file_handle_cleanup", "conditions": ["file_handle_exhaustion"]},
    )
    fleet.start(queues=QUEUES)

    done = outcome(host.recover("open_file_limit_reached"), fleet)

    assert done.result is Result.RECOVERED, fleet.logs()
    assert psutil.Process(process.pid).num_fds() == 80
    assert psutil.Process(process.pid).rlimit(psutil.RLIMIT_NOFILE) == (500, 500)
    process.communicate()


LEAKING_APP = """
import gc
from celery.signals import worker_process_init
from workers.app import app

class Node:
    pass

@worker_process_init.connect
def leak(**_):
    gc.disable()
    for _ in range(60_000):
        node = Node()
        node.self, node.rest = node, bytearray(1000)
"""


def test_every_pool_process_of_the_host_gives_its_memory_back(
    host: HostStack, fleet: Fleet, tmp_path: Path
) -> None:
    (tmp_path / "leaking_app.py").write_text(LEAKING_APP)
    python_path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '.')}"
    host.write_policy(
        {"watch": ["memory"]}, {"name": "memory_gc", "conditions": ["memory_pressure"]}
    )
    other = fleet.start(
        app="leaking_app", queues=("elsewhere",), environ={"PYTHONPATH": python_path}, beat=False
    )
    fleet.start(queues=QUEUES)
    offered = Path(host.environ["RECOVERY_STATE_DIR"]) / "processes"
    until(lambda: len(list(offered.iterdir())) == 4, what="four pool processes can be asked")
    pools = [psutil.Process(pid) for pid in other.pool_pids]
    before = [pool.memory_info().rss for pool in pools]

    record = host.recover("memory_pressure", strategy="memory_gc", force=True, reason="a test")

    assert outcome(record, fleet).result is Result.RECOVERED, fleet.logs()
    freed = [then - pool.memory_info().rss for then, pool in zip(before, pools, strict=True)]
    assert len(freed) == 2
    assert all(size > 40e6 for size in freed), freed


def test_a_dry_run_of_the_whole_way_removes_nothing(
    host: HostStack, fleet: Fleet, mount: Mount
) -> None:
    full = mount(16)
    target = {"filesystems": [str(full)], "watch": ["disk"]}
    host.write_policy(target, {**CLEANUP, "cleanup_paths": [str(full / "tmp")]})
    files = fill_up(full / "tmp", 1)
    fleet.start(queues=QUEUES)

    done = outcome(host.recover("disk_full", dry_run=True), fleet)

    assert done.result is Result.DRY_RUN
    assert all(path.exists() for path in files)
    assert probe(HostTarget.model_validate(target), 1).failure_type == "disk_full"


@pytest.mark.kill
def test_a_cleanup_whose_worker_is_killed_is_ended_by_another(
    host: HostStack, fleet: Fleet, mount: Mount
) -> None:
    full = mount(32)
    folder = full / "tmp"
    host.write_policy(
        {"filesystems": [str(full)], "watch": ["disk"]},
        {**CLEANUP, "cleanup_paths": [str(folder)]},
    )
    folder.mkdir()
    fill(full / "data", 20)
    fill_up(folder, 0.004)
    many = sum(1 for _ in folder.iterdir())
    victim = fleet.start(queues=QUEUES, beat=False)
    sent = host.trigger("disk_full")
    until(lambda: sum(1 for _ in folder.iterdir()) < many - 10, what="some files are gone")

    victim.kill()
    fleet.start(queues=QUEUES)

    record = until(lambda: host.concluded(sent), seconds=30, what="it is concluded")
    assert record is not None
    assert outcome(record, fleet).result is Result.RECOVERED, fleet.logs()
    assert Usage.of(str(full)).percent < 80


def test_a_pool_process_that_is_too_large_is_replaced_after_its_task(
    host: HostStack, fleet: Fleet
) -> None:
    host.write_policy(
        {"watch": ["memory"]},
        {"name": "memory_gc", "conditions": ["memory_pressure"], "recycle_above_mb": 32},
    )
    worker = fleet.start(queues=QUEUES, beat=False, concurrency=1)
    (first,) = worker.pool_pids

    record = host.recover("memory_pressure", strategy="memory_gc", force=True, reason="a test")

    until(lambda: worker.pool_pids not in ([first], []), seconds=20, what="another one is there")
    steps = host.control.redis.lrange(host.control.key("steps", record.id), 0, -1)
    assert re.search(r"process \d+ is replaced after its task", " ".join(steps))

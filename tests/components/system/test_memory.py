"""What control groups grant of memory and swap: its files as kernels write them, and real ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from recovery.components.system import memory
from recovery.components.system.memory import Memory
from tests.docker_engine import this_tree
from tests.fleet import ROOT
from tests.waiting import until

if TYPE_CHECKING:
    from docker import DockerClient

MB = 1024 * 1024
HOST = Memory(used=1, limit=10**9, swap_used=40_000, swap_limit=400_000)

V2 = {
    "memory.max": "1000000",
    "memory.current": "900000",
    "memory.stat": "inactive_file 100000\n",
    "memory.swap.max": "200000",
    "memory.swap.current": "150000",
}
V1 = {
    "memory.limit_in_bytes": "1000000",
    "memory.usage_in_bytes": "900000",
    "memory.stat": "inactive_file 1\ntotal_inactive_file 100000\n",
    "memory.memsw.limit_in_bytes": "1200000",
    "memory.memsw.usage_in_bytes": "1050000",
}
UNLIMITED = {**V2, "memory.max": "max"}
UNCOUNTED_V1 = {name: text for name, text in V1.items() if "memsw" not in name}
UNCOUNTED_V2 = {name: text for name, text in V2.items() if "swap" not in name}
NO_BOUND = "9223372036854771712"


def read(
    tmp_path: Path, line: str, groups: dict[str, dict[str, str]], host: Memory = HOST
) -> list[Memory]:
    for group, found in groups.items():
        folder = tmp_path / "cgroup" / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in found.items():
            (folder / name).write_text(f"{text.strip()}\n")
    membership = tmp_path / "self"
    membership.write_text(f"3:cpuset:/\n{line}\n")
    return list(memory.limits(tmp_path / "cgroup", membership, host))


@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("0::/app", {"app": V2, ".": UNLIMITED}),
        ("0::/app/worker", {"app": V2, "app/worker": UNLIMITED}),
        ("0::/", {".": V2}),
        ("7:memory:/docker/1234", {"memory": V1}),
        ("7:cpu,memory:/app", {"cpu,memory/app": V1}),
    ],
)
def test_a_control_groups_limit_counts_whichever_group_has_it(
    tmp_path: Path, line: str, files: dict[str, dict[str, str]]
) -> None:
    found = read(tmp_path, line, files)

    assert found == [Memory(used=800_000, limit=1_000_000, swap_used=150_000, swap_limit=200_000)]
    assert found[0].swap_percent == 75


@pytest.mark.parametrize(
    ("files", "used", "limit"),
    [
        ({**V1, "memory.memsw.limit_in_bytes": NO_BOUND}, 150_000, 400_000),
        ({**V2, "memory.swap.max": "max"}, 150_000, 400_000),
        # More than there is on the host is granted.
        ({**V2, "memory.swap.max": "900000"}, 150_000, 400_000),
        # None is granted.
        ({**V1, "memory.memsw.limit_in_bytes": "1000000"}, 150_000, 0),
        ({**V2, "memory.swap.max": "0", "memory.swap.current": "0"}, 0, 0),
        # Read a moment later than the memory.
        ({**V1, "memory.memsw.usage_in_bytes": "899000"}, 0, 200_000),
        # A kernel that does not count the swap of groups.
        (UNCOUNTED_V1, 40_000, 400_000),
        (UNCOUNTED_V2, 40_000, 400_000),
    ],
)
def test_the_swap_of_a_limited_group_is_its_own_as_far_as_the_kernel_knows(
    tmp_path: Path, files: dict[str, str], used: int, limit: int
) -> None:
    is_v1 = "memory.limit_in_bytes" in files
    line, group = ("7:memory:/app", "memory/app") if is_v1 else ("0::/app", "app")

    (found,) = read(tmp_path, line, {group: files})

    assert (found.swap_used, found.swap_limit) == (used, limit)
    assert found.swap_percent == (100 * used / limit if limit else 0)


def test_what_a_kernel_wrote_of_a_container_that_swaps(tmp_path: Path) -> None:
    """With 64 MB of memory and as much of swap, of which its statistics name 38,100,992 bytes."""
    files = {
        "memory.limit_in_bytes": "67108864",
        "memory.usage_in_bytes": "66953216",
        "memory.stat": "inactive_file 4259840\ntotal_swap 38100992\ntotal_inactive_file 4259840",
        "memory.memsw.limit_in_bytes": "134217728",
        "memory.memsw.usage_in_bytes": "105054208",
    }
    host = Memory(used=1, limit=8 * 10**9, swap_used=40_808_448, swap_limit=201_322_496)

    (found,) = read(tmp_path, "4:memory:/docker/8e80", {"memory": files}, host)

    assert (found.swap_used, found.swap_limit) == (38_100_992, 64 * MB)
    assert 56 < found.swap_percent < 57


def test_a_process_in_a_small_control_group_sees_its_own_limit() -> None:
    group = memory.GROUPS / "memory" / f"recovery-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(256 * MB))
    except OSError as error:
        pytest.skip(f"no memory control group of version 1 can be made here: {error}")
    script = (
        "import os, pathlib, sys;"
        "(pathlib.Path(sys.argv[1]) / 'cgroup.procs').write_text(str(os.getpid()));"
        "held = bytearray(b'x') * (200 * 2**20);"
        "from recovery.components.system import memory; print(memory.read())"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, str(group)], capture_output=True, text=True, check=True
        )
    finally:
        until(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()

    assert f"limit={256 * MB}" in done.stdout


IN_A_CONTAINER = """
import dataclasses, json, sys
from recovery.components.system import memory
held = bytearray(b"x") * (int(sys.argv[1]) * 2**20)
print(json.dumps({**dataclasses.asdict(memory.read()), "percent": memory.read().swap_percent}))
"""


@pytest.mark.docker
@pytest.mark.parametrize(("swap_mb", "held_mb"), [(64, 40), (64, 90), (0, 40)])
def test_a_container_sees_its_own_memory_and_its_own_swap(
    docker_engine: DockerClient, docker_image: str, swap_mb: int, held_mb: int
) -> None:
    of_host = psutil.swap_memory().total
    if held_mb > 64 and of_host < 64 * MB:
        pytest.skip("this host has no swap")

    output = docker_engine.containers.run(
        docker_image,
        [sys.executable, "-c", IN_A_CONTAINER, str(held_mb)],
        entrypoint="",
        remove=True,
        network_mode="none",
        mem_limit=64 * MB,
        memswap_limit=(64 + swap_mb) * MB,
        volumes=this_tree(),
        working_dir=str(ROOT),
        environment={"PYTHONDONTWRITEBYTECODE": "1"},
    )

    found = json.loads(output)
    assert found["limit"] == 64 * MB
    assert found["swap_limit"] == min(swap_mb * MB, of_host)
    if held_mb > 64:
        assert found["swap_used"] > (held_mb - 64) * MB
        assert found["percent"] > 100 * (held_mb - 64) / swap_mb

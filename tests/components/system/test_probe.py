"""What the probe says of a real host, read after read."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.components.system import filesystems, leaks, memory
from recovery.components.system.evidence import evidence
from recovery.components.system.probe import FILE_TABLE, URGENCY, probe
from recovery.components.system.target import Band, HostTarget, HostThresholds, NamedProcess
from recovery.events import ProbeReport
from recovery.finding import find_component
from tests.components.system.conftest import Mount, fill
from tests.servers import free_port
from tests.waiting import until

MB = 1024 * 1024


def limits(**said: Any) -> HostThresholds:
    return HostThresholds(**said)


def disk(folder: Path, **said: Any) -> HostTarget:
    return HostTarget(filesystems=(str(folder),), watch=("disk",), thresholds=limits(**said))


def only(named: NamedProcess, **said: Any) -> HostTarget:
    return HostTarget(processes={"it": named}, watch=("processes",), thresholds=limits(**said))


def failure(target: HostTarget) -> str | None:
    return probe(target, 1).failure_type


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python processes that run a script until their input ends."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str = "", *arguments: str) -> subprocess.Popen[str]:
        text = f"import os, sys\n{script}\nprint('up', flush=True)\nsys.stdin.read()\n"
        file = tmp_path / f"child{len(started)}.py"
        file.write_text(text)
        process = subprocess.Popen(
            [sys.executable, str(file), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    yield start
    for process in started:
        process.send_signal(signal.SIGCONT)
        process.communicate()


def pidfile(folder: Path, pid: int) -> Path:
    path = folder / "it.pid"
    path.write_text(f"{pid}\n")
    return path


def test_this_host_has_figures_and_every_failure_is_declared() -> None:
    report = probe(HostTarget(), 1)

    named = {"disk_percent", "memory_percent", "swap_percent", "load_per_cpu", "files_open"}
    assert named <= set(report.figures)
    assert json.dumps(report.as_dict())
    declared = {kind.name for kind in find_component("system").failure_types}
    assert set(URGENCY) == declared


def test_a_disk_is_unwell_from_85_on_and_well_below_80(mount: Mount) -> None:
    folder = mount(10)
    target = disk(folder)
    block = 4096
    total = filesystems.Usage.of(str(folder)).total

    def at(percent: float) -> str | None:
        (folder / "filler").write_bytes(b"x" * int(total * percent / 100 // block * block))
        return failure(target)

    assert at(84) is None
    assert at(86) == "disk_usage_high"
    assert at(82) == "disk_usage_high"
    assert at(79) is None
    assert at(84) is None
    assert at(99) == "disk_full"


def test_what_was_found_last_survives_the_process(mount: Mount, state_dir: Path) -> None:
    folder = mount(10)
    target = disk(folder)
    fill(folder / "filler", 9)
    assert failure(target) == "disk_usage_high"
    fill(folder / "filler", 8.6)
    script = (
        "import sys; from recovery.components.system.probe import probe;"
        "from recovery.components.system.target import HostTarget;"
        "print(probe(HostTarget.model_validate_json(sys.argv[1]), 1).failure_type)"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, target.model_dump_json()],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "disk_usage_high"
    (file,) = (state_dir / "hosts").iterdir()
    file.write_text("{not ours")
    assert failure(target) is None


def test_a_disk_too_full_to_remember_on_is_remembered_by_the_process(
    mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = mount(10)
    monkeypatch.setenv("RECOVERY_STATE_DIR", str(folder / "state"))
    target = disk(folder)
    while filesystems.Usage.of(str(folder)).percent < 100:
        try:
            fill(folder / str(time.monotonic_ns()), 0.3)
        except OSError:
            continue
    assert failure(target) == "disk_full"
    assert not list((folder / "state" / "hosts").glob("*"))

    for path in sorted(folder.glob("[0-9]*"))[:5]:
        path.unlink()

    assert 80 < filesystems.Usage.of(str(folder)).percent < 95
    assert failure(target) == "disk_usage_high"


def test_the_thresholds_of_a_target_are_its_own(mount: Mount) -> None:
    folder = mount(10)
    fill(folder / "filler", 5)
    band = Band(unhealthy=40, healthy=30)

    assert failure(disk(folder)) is None
    assert failure(disk(folder, disk_usage_percent=band)) == "disk_usage_high"
    assert failure(disk(folder, disk_usage_percent=band, disk_full_percent=45)) == "disk_full"


def test_a_filesystem_that_is_not_there_needs_a_person(tmp_path: Path) -> None:
    report = probe(disk(tmp_path / "gone"), 1)

    assert report.failure_type == "filesystem_unavailable"
    kind = find_component("system").failure_type("filesystem_unavailable")
    assert kind is not None
    assert kind.needs_person


def test_inodes_run_out_while_there_is_room(mount: Mount) -> None:
    folder = mount(10, "-t", "tmpfs", "-o", "size=10m,nr_inodes=100", "tmpfs")
    for number in range(88):
        (folder / str(number)).touch()

    assert failure(disk(folder)) is None
    band = Band(unhealthy=85, healthy=50)
    assert failure(disk(folder, inode_usage_percent=band)) == "inode_exhaustion"


def test_memory_is_short_from_its_threshold_on() -> None:
    used = memory.read().percent
    target = HostTarget(watch=("memory",))
    short = Band(unhealthy=used / 2, healthy=used / 4)

    assert failure(target) is None
    tight = target.model_copy(update={"thresholds": limits(memory_usage_percent=short)})
    assert failure(tight) == "memory_pressure"


def test_what_is_not_watched_is_not_reported(tmp_path: Path) -> None:
    target = HostTarget(filesystems=(str(tmp_path / "gone"),), watch=("memory",))

    report = probe(target, 1)

    assert report.healthy
    assert "disk_percent" not in report.figures


def test_the_hosts_own_table_of_open_files_is_watched() -> None:
    allocated, _, most = map(int, FILE_TABLE.read_text().split())
    percent = 100 * allocated / most
    band = Band(unhealthy=max(percent / 2, 1e-16), healthy=max(percent / 4, 1e-17))
    target = HostTarget(watch=("descriptors",), thresholds=limits(open_files_percent=band))

    assert failure(target) == "file_handle_exhaustion"
    assert failure(HostTarget(watch=("descriptors",))) is None


def test_a_named_process_is_found_by_name_command_line_or_pidfile(
    child: Any, tmp_path: Path
) -> None:
    process = child("", "--marked=here")
    by_pid = NamedProcess(pidfile=pidfile(tmp_path, process.pid))
    by_line = NamedProcess(cmdline=f"{tmp_path}.*--marked=here$")
    by_name = NamedProcess(name=psutil.Process(process.pid).name())

    assert [failure(only(named)) for named in (by_pid, by_line, by_name)] == [None, None, None]
    process.communicate()

    assert failure(only(by_pid)) == "process_unresponsive"
    assert failure(only(by_line)) == "process_unresponsive"
    assert failure(only(NamedProcess(name="no-such-program"))) == "process_unresponsive"


def test_the_key_is_the_name_of_a_process_that_has_no_other() -> None:
    target = HostTarget(processes={"nginx": NamedProcess()})

    assert target.processes["nginx"].name == "nginx"


def test_a_process_that_stands_still_does_not_respond(child: Any, tmp_path: Path) -> None:
    process = child()
    target = only(NamedProcess(pidfile=pidfile(tmp_path, process.pid)))
    assert failure(target) is None

    process.send_signal(signal.SIGSTOP)
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)

    report = probe(target, 1)
    assert report.failure_type == "process_unresponsive"
    assert f"it ({process.pid}) stands still" in report.summary


def test_a_process_has_to_accept_connections_on_its_port(tmp_path: Path) -> None:
    port = free_port()
    target = only(NamedProcess(pidfile=pidfile(tmp_path, os.getpid()), port=port))

    assert failure(target) == "process_unresponsive"
    with socket.create_server(("127.0.0.1", port)):
        assert failure(target) is None


def test_a_worker_without_a_sign_of_life_is_hung(tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    own = pidfile(tmp_path, os.getpid())
    target = only(NamedProcess(pidfile=own, heartbeat_file=beat, heartbeat_seconds=30))

    assert failure(target) == "worker_hung"
    beat.touch()
    assert failure(target) is None
    os.utime(beat, (time.time() - 60,) * 2)
    assert failure(target) == "worker_hung"


def test_a_process_near_its_limit_of_files_is_named_before_it_is_there(
    child: Any, tmp_path: Path
) -> None:
    process = child(
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100));"
        "held = [os.open('/dev/null', 0) for _ in range(92 - len(os.listdir('/proc/self/fd')))]"
    )
    report = probe(only(NamedProcess(pidfile=pidfile(tmp_path, process.pid))), 1)

    assert report.failure_type == "open_file_limit_reached"
    assert "of 100 descriptors open" in report.summary


def test_a_process_may_have_a_bound_for_its_memory(tmp_path: Path) -> None:
    own = pidfile(tmp_path, os.getpid())

    assert failure(only(NamedProcess(pidfile=own, max_rss_mb=1))) == "memory_pressure"
    assert failure(only(NamedProcess(pidfile=own, max_rss_mb=100_000))) is None


GROWING = """
import threading, time
held = []
def grow():
    while True:
        held.append(bytearray(os.urandom(1)) * (4 * 1024 * 1024))
        time.sleep(0.02)
if sys.argv[1] == "leak":
    threading.Thread(target=grow, daemon=True).start()
"""


def test_a_process_that_grows_through_its_window_leaks_and_one_reading_says_nothing(
    child: Any, tmp_path: Path
) -> None:
    process = child(GROWING, "leak")
    named = NamedProcess(
        pidfile=pidfile(tmp_path, process.pid), leak_window=1.2, leak_growth_percent=20
    )
    target = only(named)
    assert failure(target) is None

    def found() -> ProbeReport | None:
        report = probe(target, 1)
        return None if report.healthy else report

    report = until(found, seconds=20, what="the leak is seen")
    assert report is not None
    assert report.failure_type == "memory_leak"
    assert "grew by" in report.summary
    patient = only(named.model_copy(update={"leak_growth_percent": 1e9}))
    assert failure(patient) is None


@given(st.lists(st.integers(0, 400 * MB), min_size=12, max_size=40))
def test_what_is_given_back_is_no_leak(sizes: list[int]) -> None:
    floors: list[leaks.Floor] = []
    for second, size in enumerate([*sizes, 0]):
        floors = leaks.with_reading(floors, second, size, 6)

    assert leaks.growth(floors, 1) == 0
    assert len(floors) <= leaks.SLOTS


@given(st.integers(1 * MB, 500 * MB), st.integers(8 * MB, 80 * MB))
def test_steady_growth_is_found_and_measured(first: int, step: int) -> None:
    floors: list[leaks.Floor] = []
    for second in range(60):
        # A peak in each slot, given back before the next.
        floors = leaks.with_reading(floors, second / 10, first + int(second / 10) * step, 6)
        floors = leaks.with_reading(floors, second / 10, first + 900 * MB, 6)

    assert leaks.growth(floors, 0.001) == 5 * step


def test_the_evidence_names_holders_and_no_arguments(child: Any, mount: Mount) -> None:
    folder = mount(10)
    process = child("", "--password=hunter2")
    target = HostTarget(filesystems=(str(folder), "/gone"))

    text = json.dumps(evidence(target, 5.0))

    assert "hunter2" not in text
    assert process.poll() is None
    found = json.loads(text)
    assert found["filesystems"][str(folder)]["total"] > 9e6
    assert "No such file" in found["filesystems"]["/gone"]
    assert found["memory_holders"]
    assert found["descriptor_holders"]

"""A unit of a real systemd: the user's manager, or the system's where the tests are root."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from recovery.deadline import Deadline
from recovery.errors import NoSuchProcess
from recovery.runtime import Process, SystemdRuntime, manage
from tests.servers import RedisServer, redis_binary
from tests.waiting import until

UNIT = """
[Unit]
StartLimitBurst=1
StartLimitIntervalSec=600
[Service]
ExecStart={redis} --port {port} --bind 127.0.0.1 --save ""
TimeoutStopSec=60
"""


@dataclass(slots=True)
class Manager:
    """A systemd that takes orders, and the folder of its units that are gone after a reboot."""

    scope: str
    units: Path

    def systemctl(self, *words: str) -> int:
        command = ["systemctl", f"--{self.scope}", *words]
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode


def find_manager() -> Manager | None:
    if shutil.which("systemctl") is None:
        return None
    folder = os.environ.get("XDG_RUNTIME_DIR")
    known = [Manager("user", Path(folder) / "systemd" / "user")] if folder else []
    known += [Manager("system", Path("/run/systemd/system"))] if os.getuid() == 0 else []
    return next((found for found in known if found.systemctl("show-environment") == 0), None)


@dataclass(slots=True)
class Service:
    manager: Manager
    unit: str
    redis: RedisServer

    def open(self, unit: str | None = None) -> Process:
        runtime = SystemdRuntime.model_validate(
            {"kind": "systemd", "unit": unit or self.unit, "scope": self.manager.scope}
        )
        return manage(runtime, Deadline(30).remaining)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    manager = find_manager()
    if manager is None:
        pytest.skip("no systemd takes orders from this user on this machine")
    made = Service(manager, f"recovery-test-{uuid4().hex[:8]}.service", RedisServer(tmp_path))
    file = manager.units / made.unit
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(UNIT.format(redis=redis_binary(), port=made.redis.port))
    manager.systemctl("daemon-reload")
    yield made
    manager.systemctl("kill", "--signal=SIGKILL", made.unit)
    manager.systemctl("stop", made.unit)
    file.unlink()
    manager.systemctl("daemon-reload")


def test_a_unit_is_seen_started_and_stopped(service: Service) -> None:
    unit = service.open()
    assert not unit.inspect().running

    unit.start()
    until(service.redis.answers)

    state = unit.inspect()
    assert state.running
    with service.redis.client() as client:
        assert client.info("server")["process_id"] == state.pid
    unit.stop(grace=5)
    assert not unit.inspect().running
    assert not service.redis.answers()
    unit.stop(grace=5)


def test_one_that_does_not_heed_term_is_killed_and_started_past_its_limit(service: Service) -> None:
    unit = service.open()
    unit.start()
    until(service.redis.answers)
    frozen = unit.inspect()
    os.kill(frozen.pid or 0, signal.SIGSTOP)

    unit.restart(grace=0.5)

    until(service.redis.answers)
    assert unit.inspect().id != frozen.id


def test_a_unit_that_is_not_there_is_said(service: Service) -> None:
    unknown = service.open("recovery-test-unknown.service")

    assert not unknown.inspect().exists
    with pytest.raises(NoSuchProcess):
        unknown.start()

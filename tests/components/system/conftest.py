"""Real filesystems to fill, and a whole control plane for the host of the test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from celery import Celery

from recovery import producer, records
from recovery.config import load_policy
from recovery.controlplane import ControlPlane
from recovery.errors import UnknownRecovery
from recovery.events import State
from tests.fleet import Fleet
from tests.servers import RedisServer
from tests.waiting import until

HOST = "web-1"
QUEUES = ("dispatch", f"system.{HOST}", "notify", "maintenance")

Mount = Callable[..., Path]


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of a test is remembered by the host that it runs on."""
    folder = tmp_path / "state"
    monkeypatch.setenv("RECOVERY_STATE_DIR", str(folder))
    return folder


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a tmpfs of so many MB, or what the arguments of ``mount`` say, in a new folder."""
    with ExitStack() as mounted:

        def mount_one(mb: int = 16, *arguments: str, at: Path | None = None) -> Path:
            folder = at or tmp_path / f"mount{mb}"
            folder.mkdir(exist_ok=True)
            said = arguments or ("-t", "tmpfs", "-o", f"size={mb}m", "tmpfs")
            done = subprocess.run(
                ["mount", *said, str(folder)], capture_output=True, text=True, check=False
            )
            if done.returncode:
                pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
            mounted.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
            return folder

        yield mount_one


@pytest.fixture
def nobody() -> Iterator[None]:
    """The test runs with nobody's rights."""
    try:
        os.seteuid(65534)
    except PermissionError:
        pytest.skip("only root can become somebody else")
    yield
    os.seteuid(0)


def fill(path: Path, mb: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(int(mb * 1e6)))
    return path


def fill_up(folder: Path, each_mb: float) -> list[Path]:
    """Files of that size until not one byte more can be written."""
    written: list[Path] = []
    while True:
        path = folder / f"filler{len(written)}"
        written.append(path)
        try:
            fill(path, each_mb)
        except OSError:
            return written


@dataclass(slots=True)
class HostStack:
    """A control plane whose policy has the one target ``system/web-1``."""

    control: ControlPlane
    app: Celery
    environ: dict[str, str]
    folder: Path

    def write_policy(self, target: dict[str, Any], *strategies: dict[str, Any]) -> None:
        self.write_policy_of({HOST: target}, *strategies)

    def write_policy_of(
        self,
        targets: dict[str, dict[str, Any]],
        *strategies: dict[str, Any],
        sections: dict[str, Any] | None = None,
        **said: Any,
    ) -> None:
        system = {"targets": targets, "strategies": list(strategies)}
        document = {"recovery": {"system": system, **said}, **(sections or {})}
        path = Path(self.environ["RECOVERY_CONFIG"])
        path.write_text(yaml.safe_dump(document))
        load_policy(path)

    def trigger(self, failure_type: str, **said: Any) -> str:
        return producer.trigger("system", failure_type, app=self.app, **said)

    def recover(self, failure_type: str, **said: Any) -> records.Recovery:
        """Trigger, and follow until it is concluded."""
        sent = self.trigger(failure_type, **said)
        found = until(lambda: self.concluded(sent), seconds=90, what=f"{sent} is concluded")
        assert found is not None
        return found

    def concluded(self, recovery_id: str) -> records.Recovery | None:
        try:
            record = records.load(self.control, recovery_id)
        except UnknownRecovery:
            return None
        return record if record.state is State.CONCLUDED else None


@pytest.fixture
def host(tmp_path: Path, state_dir: Path, control_redis: RedisServer) -> Iterator[HostStack]:
    app = Celery("test-producer", broker=control_redis.url, set_as_current=False)
    environ = {
        **os.environ,
        "RECOVERY_CONFIG": str(tmp_path / "recovery_config.yml"),
        "RECOVERY_REDIS_URL": control_redis.url,
        "RECOVERY_STATE_DIR": str(state_dir),
        "RECOVERY_HOST": HOST,
    }
    control = ControlPlane(control_redis.client())
    yield HostStack(control=control, app=app, environ=environ, folder=tmp_path)
    app.close()
    control.redis.close()


@pytest.fixture
def fleet(host: HostStack, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(host.environ, tmp_path)
    yield fleet
    fleet.stop()

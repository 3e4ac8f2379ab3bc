"""Units of a real systemd: the user's manager, or the system's where the tests are root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest

from recovery.deadline import Deadline
from recovery.runtime import Process, SystemdRuntime, manage


@dataclass(slots=True)
class Manager:
    """A systemd that takes orders, and the folder of its units that are gone after a reboot."""

    scope: str
    folder: Path
    written: list[str] = field(default_factory=list)

    def systemctl(self, *words: str) -> int:
        command = ["systemctl", f"--{self.scope}", *words]
        return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode

    def write(self, service: str, unit: str = "", name: str | None = None) -> str:
        """A unit of those sections, under a name of its own."""
        name = name or f"recovery-test-{uuid4().hex[:8]}.service"
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(f"[Unit]\n{unit}\n[Service]\n{service}\n")
        self.systemctl("daemon-reload")
        self.written.append(name)
        return name

    def mask(self, name: str) -> None:
        """As ``systemctl mask`` does for a unit whose file lies in another folder."""
        (self.folder / name).unlink()
        (self.folder / name).symlink_to("/dev/null")
        self.systemctl("daemon-reload")

    def runtime(self, unit: str) -> SystemdRuntime:
        said = {"kind": "systemd", "unit": unit, "scope": self.scope}
        return SystemdRuntime.model_validate(said)

    def open(self, unit: str) -> Process:
        return manage(self.runtime(unit), Deadline(60).remaining)

    def clear(self) -> None:
        for name in self.written:
            self.systemctl("kill", "--signal=SIGKILL", name)
            self.systemctl("stop", name)
            self.systemctl("reset-failed", name)
            (self.folder / name).unlink(missing_ok=True)
        self.systemctl("daemon-reload")


def find_manager() -> Manager | None:
    if shutil.which("systemctl") is None:
        return None
    folder = os.environ.get("XDG_RUNTIME_DIR")
    known = [Manager("user", Path(folder) / "systemd" / "user")] if folder else []
    known += [Manager("system", Path("/run/systemd/system"))] if os.getuid() == 0 else []
    return next((found for found in known if found.systemctl("show-environment") == 0), None)


@pytest.fixture
def systemd() -> Iterator[Manager]:
    manager = find_manager()
    if manager is None:
        pytest.skip("no systemd takes orders from this user on this machine")
    yield manager
    manager.clear()

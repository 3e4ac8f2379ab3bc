"""A real Prometheus and a real Alertmanager for tests, each a process on a free port."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers import free_port
from tests.waiting import until

REQUIRE = "RECOVERY_REQUIRE_TOOLS"


def tool(*names: str) -> str:
    """The first that is installed; a failure where it was promised, a skip elsewhere."""
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        reason = f"none of {', '.join(names)} is installed"
        if os.environ.get(REQUIRE) == "1":
            pytest.fail(f"{reason} ({REQUIRE}=1)", pytrace=False)
        pytest.skip(reason)
    return found


@dataclass(slots=True)
class Monitor:
    """One server of the Prometheus family with its configuration and log in a folder."""

    folder: Path
    command: list[str]
    config: dict[str, Any]
    storage: str = "--storage.path"
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "config.yml"
        config.write_text(yaml.safe_dump(self.config))
        command = [
            *self.command,
            f"--config.file={config}",
            f"{self.storage}={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self.is_ready, seconds=60, what=f"{command[0]} is ready")

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return json.load(answer)

    def alerts(self, **labels: str) -> list[dict[str, Any]]:
        """Alertmanager's active alerts with these labels."""
        found = self.get("/api/v2/alerts")
        return [one for one in found if labels.items() <= one["labels"].items()]

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def alertmanager_at(folder: Path, config: dict[str, Any]) -> Monitor:
    command = [tool("prometheus-alertmanager", "alertmanager"), "--cluster.listen-address="]
    return Monitor(folder=folder, command=command, config=config)


def prometheus_at(folder: Path, config: dict[str, Any]) -> Monitor:
    return Monitor(
        folder=folder, command=[tool("prometheus")], config=config, storage="--storage.tsdb.path"
    )


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Monitor]:
    """One that takes everything and tells nobody."""
    config = {"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}
    server = alertmanager_at(tmp_path / "alertmanager", config)
    server.start()
    yield server
    server.stop()

"""Hosts for tests: network namespaces with names, addresses and loopback interfaces."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest

from tests.fleet import ROOT
from tests.waiting import until

COMMAND = ("-c", "from recovery.cli import main; main()")


@dataclass(slots=True, kw_only=True)
class NetHost:
    """One host, reached from outside at ``address``; it reaches the outside at ``gateway``."""

    name: str
    namespace: str
    address: str
    gateway: str
    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    logs: list[Path] = field(default_factory=list)
    _sinks: list[IO[bytes]] = field(default_factory=list)
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ip", "netns", "exec", self.namespace, *command],
            capture_output=True,
            text=True,
            check=check,
        )

    def start_worker(self, *arguments: str) -> None:
        """``recovery worker`` on this host, which finds its queues by itself."""
        log = self.folder / f"{self.name}-{len(self.logs)}.log"
        self.logs.append(log)
        sink = log.open("wb")
        self._sinks.append(sink)
        inside = ("ip", "netns", "exec", self.namespace)
        process = subprocess.Popen(
            [*inside, sys.executable, *COMMAND, "worker", "--concurrency", "1", *arguments],
            cwd=ROOT,
            env={**os.environ, **self.environ},
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._started.append(process)

    def pids(self) -> list[int]:
        listed = subprocess.run(
            ["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=True
        )
        return [int(pid) for pid in listed.stdout.split()]

    def power_off(self) -> None:
        """Everything on the host is gone at once."""

        def is_off() -> bool:
            pids = self.pids()
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            return not pids

        until(is_off, what=f"{self.name} is off")
        while self._started:
            self._started.pop().wait()

    def said(self) -> str:
        return "\n".join(f"== {log.name}\n{log.read_text()}" for log in self.logs)

    def close(self) -> None:
        self.power_off()
        for sink in self._sinks:
            sink.close()


@contextmanager
def net_host(name: str, number: int, folder: Path) -> Iterator[NetHost]:
    """A namespace behind a pair of virtual interfaces; skips where none can be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces take root and the command ip")
    tag = f"{os.getpid() % 100_000}{number}"
    subnet = f"10.{200 + number}.{os.getpid() % 250}"
    host = NetHost(
        name=name,
        namespace=f"rcv{tag}",
        gateway=f"{subnet}.1",
        address=f"{subnet}.2",
        folder=folder,
    )
    outer, inner = f"ra{tag}", f"rb{tag}"
    made = _ip("netns", "add", host.namespace)
    if made.returncode:
        pytest.skip(f"no network namespace can be made here: {made.stderr.strip()}")
    try:
        for command in (
            ("link", "add", outer, "type", "veth", "peer", "name", inner),
            ("link", "set", inner, "netns", host.namespace),
            ("addr", "add", f"{host.gateway}/30", "dev", outer),
            ("link", "set", outer, "up"),
            ("-n", host.namespace, "addr", "add", f"{host.address}/30", "dev", inner),
            ("-n", host.namespace, "link", "set", inner, "up"),
            ("-n", host.namespace, "link", "set", "lo", "up"),
        ):
            done = _ip(*command)
            if done.returncode:
                pytest.skip(f"no virtual network can be made here: {done.stderr.strip()}")
        yield host
        host.close()
    finally:
        for pid in host.pids():
            os.kill(pid, signal.SIGKILL)
        _ip("netns", "del", host.namespace)
        _ip("link", "del", outer)


def _ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)

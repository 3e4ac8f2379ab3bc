"""A supervisor as a process of its own: ``python -m tests.supervising SPEC``, a JSON object.

``programs``: name, command and what else a ``Program`` has, ``up_file`` for its ``is_up``;
``workers``: the arguments of ``worker_command``; ``grace``, ``deaf_after`` and ``full_after`` in
seconds.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from recovery import logs, producer
from recovery.cli.running import worker_command
from recovery.liveness import Pulse
from recovery.supervisor import Program, Supervisor
from recovery.systemd import ServiceManager
from tests.fleet import ROOT


def program(spec: dict[str, Any]) -> Program:
    up_file = spec.pop("up_file", None)
    command = tuple(spec.pop("command"))
    return Program(command=command, is_up=Path(up_file).exists if up_file else None, **spec)


def worker(spec: dict[str, Any], deaf_after: float, full_after: float) -> Program:
    node = spec["node"]
    pulse = Pulse(
        partial(producer.send_pulse, node),
        partial(producer.forget_pulses, node),
        deaf_seconds=deaf_after,
        full_seconds=full_after,
    )
    return Program(name=node, command=worker_command(**spec), watch=pulse)


def main() -> None:
    logs.configure("INFO")
    spec = json.loads(sys.argv[1])
    deaf_after = spec.get("deaf_after", 15.0)
    programs = [program(one) for one in spec.get("programs", ())]
    full_after = spec.get("full_after", 60.0)
    programs += [worker(one, deaf_after, full_after) for one in spec.get("workers", ())]
    Supervisor(
        programs=programs,
        grace_seconds=spec.get("grace", 10.0),
        deaf_grace_seconds=0.5,
        manager=ServiceManager.from_environment(),
    ).run()


@dataclass(slots=True)
class Supervised:
    """A running supervisor and what it has written."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        return self.log.read_text()

    def family(self) -> list[psutil.Process]:
        """Everything under it, however deep."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def mains(self) -> list[int]:
        """The pids of the programs themselves."""
        return [child.pid for child in psutil.Process(self.process.pid).children()]

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@contextmanager
def supervised(
    folder: Path, *command: str, environ: dict[str, str] | None = None
) -> Iterator[Supervised]:
    """Run ``python`` with these arguments; whatever is left of it at the end is killed."""
    log = folder / "supervisor.log"
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environ or dict(os.environ),
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    family: list[psutil.Process] = []
    found = Supervised(process, log)
    try:
        yield found
    finally:
        if process.poll() is None:
            family = found.family()
            # Two different ones, so that they cannot merge: no test waits for a proper end here.
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for left in family:
            if left.is_running():
                left.kill()


def supervising(folder: Path, environ: dict[str, str] | None = None, **spec: Any) -> Any:
    return supervised(folder, "-m", "tests.supervising", json.dumps(spec), environ=environ)


if __name__ == "__main__":
    main()

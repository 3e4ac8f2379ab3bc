"""Real Celery workers for tests: started as processes, watched, killed, stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.waiting import until

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_QUEUES = ("dispatch", "celery", "redis", "notify", "maintenance")


@dataclass(slots=True)
class Worker:
    """One worker with its pool processes, in a process group of its own."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    pool_size: int

    @property
    def pool_pids(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.process.pid).children(recursive=True)]

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        said = self.log.read_text()
        return "ready." in said and said.count("targets held") >= self.pool_size

    def kill(self) -> None:
        """SIGKILL to the worker and all its pool processes, as when the power goes."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
                return
        self._sweep()

    def _sweep(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


@dataclass(slots=True)
class Fleet:
    """The workers of one test and the environment that they share."""

    environ: dict[str, str]
    folder: Path
    workers: list[Worker] = field(default_factory=list)

    def start(
        self,
        *,
        app: str = "workers.app",
        queues: Sequence[str] = DEFAULT_QUEUES,
        beat: bool = True,
        concurrency: int = 2,
        pool: str = "prefork",
        environ: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> Worker:
        name = f"w{len(self.workers)}"
        log = self.folder / f"{name}.log"
        command = [sys.executable, "-m", "celery", "-A", app, "worker", "-n", f"{name}@test"]
        command += ["-Q", ",".join(queues), "-c", str(concurrency), "-l", "INFO"]
        command += ["--pool", pool, "--without-mingle", "--without-gossip"]
        command += ["--beat"] if beat else []
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**self.environ, **(environ or {})},
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # Threads are no processes of a pool: none of them has anything to say before it is ready.
        forked = concurrency if pool == "prefork" else 0
        worker = Worker(name=name, process=process, log=log, pool_size=forked)
        self.workers.append(worker)
        if wait:
            until(worker.is_ready, seconds=30, what=f"{name} is ready")
        return worker

    def stop(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.terminate()
        for worker in self.workers:
            worker.stop()

    def logs(self) -> str:
        return "\n".join(f"== {w.name}\n{w.log.read_text()}" for w in self.workers)

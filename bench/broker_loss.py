"""Does a stock Celery worker outlive its broker, with the versions that are installed.

Every round has a Redis and a worker of its own. Redis is killed with SIGKILL while the worker is in
the state asked for, stays away for two seconds and comes back with its append-only file. A worker
has survived when its process still lives and takes new tasks: one sent at once and one sent when
everything from before the loss has ended, each within fifteen seconds.

What a task does shows in files, not in Redis, so that the judgement doesn't depend on the patient.
The baseline is a worker that was never disturbed: all rounds survive. With a late acknowledgement
and a free process a worker that is ``running`` both holds a message and waits for the next one;
``--concurrency 1`` takes the waiting away.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import redis
from celery import Celery

from bench.report import finish

ROOT = Path(__file__).resolve().parent.parent
STATES = ("idle", "running", "acks")
AWAY_SECONDS = 2.0
BACK_WITHIN_SECONDS = 15.0
# Longer than the loss and the reconnecting, so that the task is there before, during and after.
LONG_TASK_SECONDS = 6.0
SHORT_TASK_SECONDS = 0.02
SHORT_TASKS = 120
LIMIT = 1.0

# The worker imports this module too and finds its surroundings in the environment.
URL = "BENCH_BROKER_LOSS_URL"
NOTES = "BENCH_BROKER_LOSS_NOTES"
CANCEL = "BENCH_BROKER_LOSS_CANCEL"

app = Celery("broker_loss", broker=os.environ.get(URL, "redis://127.0.0.1:6379/0"))
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    worker_cancel_long_running_tasks_on_connection_loss=os.environ.get(CANCEL) == "1",
)


@app.task(name="bench.note")
def note(name: str, seconds: float = 0.0) -> None:
    """Leave a file when begun, be busy for a while, leave another one when done."""
    folder = Path(os.environ[NOTES])
    (folder / f"{name}.begun").touch()
    time.sleep(seconds)
    (folder / f"{name}.done").touch()


class Broker:
    """A Redis that can be killed and started again over the same append-only file."""

    def __init__(self, folder: Path, *, unix_socket: bool) -> None:
        self._folder = folder
        self._command = [redis_binary(), "--dir", str(folder), "--save", ""]
        self._command += ["--appendonly", "yes", "--appendfsync", "always"]
        if unix_socket:
            path = folder / "redis.sock"
            self._command += ["--port", "0", "--unixsocket", str(path)]
            self.url = f"redis+socket://{path}"
            self._client = redis.Redis(unix_socket_path=str(path))
        else:
            port = free_port()
            self._command += ["--port", str(port), "--bind", "127.0.0.1"]
            self.url = f"redis://127.0.0.1:{port}/0"
            self._client = redis.Redis(port=port)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "redis.log").open("ab") as sink:
            self._process = subprocess.Popen(self._command, stdout=sink, stderr=subprocess.STDOUT)
        wait_for(self._answers, 10, "Redis answers")

    def kill(self) -> None:
        """With SIGKILL; nothing happens when it isn't running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def holds(self) -> str:
        """Where the messages are that nobody has done."""
        unacked, queued = self._client.hlen("unacked"), self._client.llen("celery")
        return f"the broker holds {unacked} unacknowledged and {queued} queued"

    def _answers(self) -> bool:
        try:
            return bool(self._client.ping())
        except redis.RedisError:
            return False


@dataclass(frozen=True)
class Outcome:
    """One round: what the worker did, and how long the first new task took when it did well."""

    survived: bool
    text: str
    seconds: float | None = None
    late: int = 0


@dataclass(frozen=True)
class Options:
    unix_socket: bool = False
    cancel: bool = False
    concurrency: int = 2
    logs: Path | None = None


def redis_binary() -> str:
    for name in (os.environ.get("RECOVERY_REDIS_SERVER"), "redis-server"):
        found = shutil.which(name) if name else None
        if found:
            return found
    sys.exit("no redis-server on the PATH; name one in RECOVERY_REDIS_SERVER")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def holds_within(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    if not holds_within(condition, seconds):
        raise TimeoutError(f"not within {seconds:g} s: {what}")


@contextmanager
def worker(url: str, folder: Path, options: Options) -> Iterator[subprocess.Popen[bytes]]:
    """A prefork worker, ready when yielded; its output is in ``worker.log``."""
    log = folder / "worker.log"
    environ = {
        **os.environ,
        URL: url,
        NOTES: str(folder),
        CANCEL: "1" if options.cancel else "0",
    }
    command = [sys.executable, "-m", "celery", "-A", "bench.broker_loss", "worker"]
    command += ["--pool", "prefork", "--concurrency", str(options.concurrency)]
    command += ["--loglevel", "INFO"]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdout=sink, stderr=subprocess.STDOUT
        )
    try:
        wait_for(lambda: " ready." in log.read_text(), 60, "the worker is ready")
        yield process
    finally:
        process.terminate()
        try:
            process.wait(LONG_TASK_SECONDS + 5)
        except subprocess.TimeoutExpired:
            # Its children notice that they are orphans and leave.
            process.kill()
            process.wait()


def send(url: str, name: str, seconds: float = 0.0) -> None:
    """Over a connection of its own: the sender's pool is not what is examined."""
    with app.connection_for_write(url) as connection:
        note.apply_async((name, seconds), connection=connection)


def bring_about(state: str, url: str, folder: Path) -> None:
    """Return at a moment at which the worker is in that state."""
    if state == "running":
        send(url, "long", LONG_TASK_SECONDS)
        wait_for((folder / "long.begun").exists, 15, "the long task begins")
        time.sleep(0.3)
    elif state == "acks":
        with app.connection_for_write(url) as connection:
            for number in range(SHORT_TASKS):
                note.apply_async((f"short-{number}", SHORT_TASK_SECONDS), connection=connection)
        wait_for((folder / f"short-{SHORT_TASKS // 4}.done").exists, 30, "short tasks end")
    else:
        time.sleep(1.0)


def took(process: subprocess.Popen[bytes], url: str, folder: Path) -> float | str:
    """Seconds until a new task is done, or why it isn't."""
    name = f"new-{uuid.uuid4().hex}"
    done = folder / f"{name}.done"
    began = time.monotonic()
    send(url, name)
    holds_within(lambda: done.exists() or process.poll() is not None, BACK_WITHIN_SECONDS)
    if process.poll() is not None:
        return f"exited with {process.returncode}"
    if not done.exists():
        return f"lives, but takes nothing for {BACK_WITHIN_SECONDS:g} s"
    return time.monotonic() - began


def not_done(state: str, folder: Path) -> int:
    """How many tasks from before the loss have not been done once yet."""
    if state == "running":
        return 0 if (folder / "long.done").exists() else 1
    if state == "acks":
        return SHORT_TASKS - len(list(folder.glob("short-*.done")))
    return 0


def play(state: str, number: int, options: Options) -> Outcome:
    """One round."""
    with tempfile.TemporaryDirectory(prefix="broker-loss-") as name:
        folder = Path(name)
        broker = Broker(folder, unix_socket=options.unix_socket)
        broker.start()
        try:
            with worker(broker.url, folder, options) as process:
                bring_about(state, broker.url, folder)
                broker.kill()
                time.sleep(AWAY_SECONDS)
                broker.start()
                first = took(process, broker.url, folder)
                if isinstance(first, str):
                    return Outcome(False, f"{first}{last_error(folder)}")
                holds_within(lambda: not_done(state, folder) == 0, BACK_WITHIN_SECONDS)
                second = took(process, broker.url, folder)
                if isinstance(second, str):
                    return Outcome(False, f"took one more task, then: {second}{last_error(folder)}")
                late = not_done(state, folder)
                left = f", {late} from before not done; {broker.holds()}" if late else ""
                return Outcome(True, f"new task done after {first:.1f} s{left}", first, late)
        finally:
            broker.kill()
            if options.logs is not None:
                shutil.copy(folder / "worker.log", options.logs / f"{state}-{number}.log")


def last_error(folder: Path) -> str:
    lines = (folder / "worker.log").read_text().splitlines()
    found = [line.strip() for line in lines if "Unrecoverable" in line or "Error: " in line]
    return f" ({found[-1]})" if found else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4, help="rounds of each state (default 4)")
    parser.add_argument(
        "--state", choices=STATES, action="append", help="may be repeated; all when not given"
    )
    parser.add_argument("--unix-socket", action="store_true", help="broker on a unix socket")
    parser.add_argument(
        "--cancel", action="store_true", help="a worker that cancels its tasks when Redis goes"
    )
    parser.add_argument("--concurrency", type=int, default=2, help="pool processes (default 2)")
    parser.add_argument("--logs", type=Path, help="folder in which to leave the workers' logs")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    if arguments.logs is not None:
        arguments.logs.mkdir(parents=True, exist_ok=True)
    options = Options(
        unix_socket=arguments.unix_socket,
        cancel=arguments.cancel,
        concurrency=arguments.concurrency,
        logs=arguments.logs,
    )
    packages = " ".join(f"{name} {version(name)}" for name in ("celery", "kombu", "redis"))
    print(f"{packages}, Python {sys.version.split()[0]}", flush=True)

    survived = played = held = 0
    for state in arguments.state or STATES:
        for number in range(1, arguments.rounds + 1):
            outcome = play(state, number, options)
            survived += outcome.survived
            held += outcome.late > 0
            played += 1
            verdict = "survived" if outcome.survived else "lost"
            print(f"{state:8} {number}: {verdict}: {outcome.text}", flush=True)

    share = survived / played
    print(f"{survived} of {played} survived; in {held} a message from before the loss is held back")
    finish(
        "broker_loss",
        n=played,
        unit="share of rounds survived",
        ours=round(share, 3),
        baseline=1.0,
        ratio=round(share, 3),
        limit=LIMIT,
        ok=share >= LIMIT,
    )


if __name__ == "__main__":
    main()

"""Commands that run things: ``worker``, ``up``, ``demo``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import click

from recovery.cli import session
from recovery.cli.session import reports_errors

COMMON_QUEUES = ("dispatch", "redis", "chromadb", "openwebui", "system", "notify", "maintenance")
GRACE_SECONDS = 15.0
RESTART_PAUSE_SECONDS = 1.0


def host_queues() -> list[str]:
    """Every queue that a worker of this host consumes by default."""
    from recovery.config import Environment

    host = Environment.read().host
    bound = [f"{component}.{host}" for component in ("redis", "chromadb", "openwebui", "system")]
    return [*COMMON_QUEUES, *bare_queues(), *bound]


def bare_queues() -> list[str]:
    """The queue of producers that name none, unless the policy leaves it to somebody else."""
    return ["celery"] if session.policy().integration.consume_celery_default_queue else []


def worker_command(name: str, queues: list[str], concurrency: int, *, beat: bool) -> list[str]:
    command = [sys.executable, "-m", "celery", "-A", "workers.app", "worker", "-n", f"{name}@%h"]
    command += ["-Q", ",".join(queues), "-c", str(concurrency), "-l", "INFO"]
    return [*command, "--beat"] if beat else command


@click.command()
@click.option("--queues", help="Comma separated; all of this host's by default.")
@click.option("--concurrency", type=int, default=2, help="Pool processes.")
@click.option("--name", default="recovery", help="Node name before the @.")
@click.option("--beat", is_flag=True, help="Run the schedule in this worker too.")
@reports_errors
def worker(queues: str | None, concurrency: int, name: str, beat: bool) -> None:
    """Run a Celery worker for this host.

    \b
    Example:
      recovery worker --queues redis,system.web-1
    """
    chosen = queues.split(",") if queues else host_queues()
    command = worker_command(name, chosen, concurrency, beat=beat)
    os.execv(command[0], command)  # noqa: S606 - our own interpreter, no shell


@click.command()
@reports_errors
def up() -> None:
    """Run everything on this machine: control Redis, workers, schedule. Ctrl-C stops it all.

    \b
    Example:
      recovery up
    """
    from recovery import embedded
    from recovery.config import Environment

    environment = Environment.read()
    session.policy()
    control = embedded.start(environment) if environment.is_embedded else None
    click.echo(f"control plane: {environment.shown_control_url}")
    groups = {
        "dispatch": worker_command("dispatch", ["dispatch", *bare_queues()], 1, beat=False),
        "redis": worker_command("redis", _bound_queues("redis", environment.host), 2, beat=False),
        "system": worker_command(
            "system", _bound_queues("system", environment.host), 1, beat=False
        ),
        "upkeep": worker_command("upkeep", ["maintenance", "notify"], 1, beat=True),
    }
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    running = {name: _start(command) for name, command in groups.items()}
    click.echo("up: stop with Ctrl-C or SIGTERM")
    while not stopping:
        time.sleep(0.2)
        for name, process in running.items():
            if process.poll() is not None and not stopping:
                click.echo(f"{name} exited with {process.returncode}; started again", err=True)
                time.sleep(RESTART_PAUSE_SECONDS)
                running[name] = _start(groups[name])
    _stop([*running.values()])
    if control is not None:
        _stop([control])
    click.echo("down")


def _bound_queues(component: str, host: str) -> list[str]:
    return [component, f"{component}.{host}"]


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, start_new_session=True)


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ask all to end, wait, and kill the group of whatever does not."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        try:
            process.wait(max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@click.command()
@reports_errors
def demo() -> None:
    """Break a real Redis and watch it come back; leaves nothing running.

    \b
    Example:
      recovery demo
    """
    from recovery.demo import main

    sys.exit(main())


COMMANDS = (worker, up, demo)

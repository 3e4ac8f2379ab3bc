"""``redis.restart_container``: a fresh container of the same configuration, or a fresh process."""

from __future__ import annotations

from typing import Any

from redis import exceptions

from recovery.components.redis.connection import fresh, release
from recovery.components.redis.target import RedisTarget
from recovery.deadline import Deadline
from recovery.errors import (
    NoSuchProcess,
    NotConfigured,
    NothingKept,
    RemedyError,
    StillUnhealthy,
    WrongProcess,
)
from recovery.runtime import DockerRuntime, Process, Readiness, Ready, Runtime, await_ready, manage
from recovery.strategy import Duration, Journal, Kept, Parameters, strategy

ANSWER_SECONDS = 1.0
"""How long one PING may take while the new server is waited for."""

CLOCK_SLACK = 2.0
"""Redis tells its uptime in whole seconds."""


class RestartContainer(Parameters):
    """``stop_grace``: seconds between TERM and KILL. A server that saves at TERM needs as many as
    saving takes; killed, it loses what was written since its last save.
    """

    stop_grace: Duration = 5.0


@strategy(
    component="redis",
    summary="Replace the target's container by a fresh one, or restart its process.",
    parameters=RestartContainer,
    destructive=True,
    requires_approval=True,
    undo="recovery.components.redis.restart_container:undo",
    discard="recovery.components.redis.restart_container:discard",
    timeout_seconds=15.0,
)
def restart_container(target: RedisTarget, parameters: RestartContainer, journal: Journal) -> None:
    """Raises ``NotConfigured`` where the target has no ``runtime``, ``WrongProcess`` where another
    server answers than the one that was started, and what ``recovery.runtime`` raises."""
    runtime = _runtime(target)
    process = manage(runtime, journal.remaining, target.url)
    ready = _asks(target, process)
    journal.change("own connection closed", lambda: release(target))
    if isinstance(runtime, DockerRuntime):
        from recovery.runtime.docker_replace import replace

        replace(runtime, journal, grace=parameters.stop_grace, ready=ready)
    else:
        _restart(process, journal, parameters.stop_grace, ready)


def undo(target: RedisTarget, _parameters: RestartContainer, journal: Journal, kept: Kept) -> None:
    """Bring the old container back, and say whether it answers: it may have been broken.

    Raises ``NothingKept`` where the process was restarted in place, and what
    ``recovery.runtime.docker_replace.undo`` raises.
    """
    from recovery.runtime import docker_replace

    runtime = _docker(target)
    journal.change("own connection closed", lambda: release(target))
    runs = docker_replace.undo(runtime, journal, kept)
    if runs and not journal.dry_run:
        process = manage(runtime, journal.remaining, target.url)
        try:
            _see_ready(process, journal, _asks(target, process))
        except RemedyError as error:
            journal.note("it is back and does not answer", why=error.message)


def discard(target: RedisTarget, _parameters: RestartContainer, kept: Kept) -> None:
    """Remove the container that was put aside; volumes that anything uses stay."""
    from recovery.runtime import docker_replace

    docker_replace.discard(_docker(target), kept)


def _runtime(target: RedisTarget) -> Runtime:
    if target.runtime is None:
        raise NotConfigured(
            "the policy does not say how this Redis is run: add the key runtime to its target",
            {"key": "runtime"},
        )
    return target.runtime


def _docker(target: RedisTarget) -> DockerRuntime:
    runtime = _runtime(target)
    if not isinstance(runtime, DockerRuntime):
        raise NothingKept(f"a process run by {runtime.kind} is restarted in place")
    return runtime


def _restart(process: Process, journal: Journal, grace: float, ready: Ready) -> None:
    """In this order whatever the state: killed in between, the next run only starts it."""
    found = process.inspect()
    if not found.exists:
        raise NoSuchProcess(found.detail)
    journal.note("process found", state=found.detail, pid=found.pid)
    if found.running:
        journal.change("process stopped", lambda: process.stop(grace), grace_s=grace)
    journal.change("process started", process.start)
    if not journal.dry_run:
        _see_ready(process, journal, ready)


def _see_ready(process: Process, journal: Journal, ready: Ready) -> None:
    within = Deadline(journal.remaining())
    found = await_ready(ready, process.inspect, within, "the process")
    journal.note(f"the process is {found.value}")
    if found is Readiness.COMING:
        raise StillUnhealthy("the process was started and is loading its data")


def _asks(target: RedisTarget, process: Process) -> Ready:
    """What a client's next connection would find, and that it is the server we started."""

    def ready() -> Readiness:
        with fresh(target, ANSWER_SECONDS) as client:
            found = _ping(client)
            if found is Readiness.READY:
                _refuse_another(client, process)
        return found

    return ready


def _ping(client: Any) -> Readiness:
    try:
        client.ping()
    except exceptions.BusyLoadingError:
        return Readiness.COMING
    except (exceptions.AuthenticationError, exceptions.ResponseError):
        # It answers. What it says of us was the same before, and the probe will judge it.
        return Readiness.READY
    except exceptions.RedisError:
        return Readiness.ABSENT
    return Readiness.READY


def _refuse_another(client: Any, process: Process) -> None:
    """By the server's own clock, which is that of the host that started it."""
    try:
        info: dict[str, Any] = client.info("server")
    except exceptions.RedisError:
        return
    started = process.inspect().started_at
    since = int(info["server_time_usec"]) / 1e6 - int(info["uptime_in_seconds"])
    if started is not None and since < started - CLOCK_SLACK:
        raise WrongProcess(
            f"what answers runs since {started - since:.0f} s before the process that was started: "
            "url and runtime of the target name different servers"
        )

"""Commands that run things: ``worker``, ``up``, ``demo``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from recovery.cli import serving, session
from recovery.cli.session import DURATION, reports_errors

if TYPE_CHECKING:
    from recovery.config import Environment, Policy
    from recovery.supervisor import Program

COMMON_QUEUES = ("dispatch", "redis", "chromadb", "openwebui", "system", "notify", "maintenance")
GRACE_MARGIN_SECONDS = 10.0
ROUNDS = 16
"""Rounds of looks that one process may have under way; each is one thread that mostly waits."""


def host_queues() -> list[str]:
    """Every queue that a worker of this host consumes by default."""
    from recovery import producer
    from recovery.config import Environment

    host = Environment.read().host
    bound = [f"{component}.{host}" for component in ("redis", "chromadb", "openwebui", "system")]
    return [*COMMON_QUEUES, producer.maintenance_queue(host), *bare_queues(), *bound]


def bare_queues() -> list[str]:
    """The queue of producers that name none, unless the policy leaves it to somebody else."""
    return ["celery"] if session.policy().integration.consume_celery_default_queue else []


def probe_queues(queues: Iterable[str]) -> list[str]:
    """Where the targets are looked at whose remedies run on these queues."""
    from recovery.config.policy import PROBE_QUEUES
    from recovery.strategy import COMPONENTS

    if not session.policy().integration.health_check_integration:
        return []
    return [f"{PROBE_QUEUES}{queue}" for queue in queues if queue.split(".")[0] in COMPONENTS]


def worker_command(
    node: str,
    queues: list[str],
    concurrency: int,
    *,
    beat: bool = False,
    loglevel: str = "info",
    app: str = "workers.app",
    pool: str = "prefork",
) -> tuple[str, ...]:
    """A worker that also consumes the queue of its own pulse."""
    from recovery.producer import pulse_queue

    consumed = ",".join([*queues, pulse_queue(node).name])
    command = [sys.executable, "-m", "celery", "--quiet", "-A", app, "worker", "-n", node]
    command += ["-Q", consumed, "-c", str(concurrency), "-l", loglevel.upper()]
    # Nothing here asks its neighbours, and asking costs each start a second.
    command += ["--pool", pool, "--without-mingle", "--without-gossip"]
    return (*command, "--beat") if beat else tuple(command)


def supervision(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that supervises workers."""
    for option in (
        click.option(
            "--loglevel",
            type=click.Choice(["debug", "info", "warning", "error"]),
            default="info",
            help="debug adds a line for each message taken and done.",
        ),
        click.option(
            "--grace",
            type=DURATION,
            help="What running remedies may take when stopped; the longest one's time and 10 s.",
        ),
        click.option(
            "--deaf-after",
            type=DURATION,
            default="15s",
            help="Replace a worker that takes no message for so long.",
        ),
    ):
        command = option(command)
    return command


def guard_command(policy: Policy) -> tuple[str, ...]:
    """The process that helps this host while the control plane is away; empty where none may."""
    return (sys.executable, "-m", "recovery.failsafe") if policy.failsafe.enabled else ()


@click.command()
@click.option("--queues", help="Comma separated; all of this host's by default.")
@click.option("--concurrency", type=int, default=2, help="Pool processes.")
@click.option("--name", default="recovery", help="Node name before the @.")
@click.option("--beat", is_flag=True, help="Run the schedule in this worker too.")
@click.option(
    "--probes/--no-probes",
    default=True,
    help="Also look at the targets of these queues, in a process of its own.",
)
@supervision
@reports_errors
def worker(
    queues: str | None,
    concurrency: int,
    name: str,
    *,
    beat: bool,
    probes: bool,
    loglevel: str,
    grace: float | None,
    deaf_after: float,
) -> None:
    """Run a worker for this host, and start it again when it ends or falls silent.

    \b
    Example:
      recovery worker --queues redis,system.web-1
    """
    with ExitStack() as stack:
        house = _House(stack, loglevel, deaf_after)
        chosen = _known_queues(queues) if queues else host_queues()
        house.introduce()
        house.add_worker(name, chosen, concurrency, beat=beat)
        if probes:
            house.add_probes(f"{name}-probes", chosen)
        house.add_guard()
        house.run(grace)


def _known_queues(text: str) -> list[str]:
    """A name that nothing is ever sent to would be waited on for ever, in silence."""
    queues = [name.strip() for name in text.split(",") if name.strip()]
    known = {*COMMON_QUEUES, "celery"}
    for name in queues:
        base = name.removeprefix("probe.").partition(".")[0]
        if base not in known:
            raise click.BadParameter(
                f"nothing is ever sent to {name!r}; known: {', '.join(sorted(known))};"
                " those of a component and maintenance also with a host, as redis.web-1",
                param_hint="--queues",
            )
    return queues


@click.command()
@supervision
@reports_errors
def up(loglevel: str, grace: float | None, deaf_after: float) -> None:
    """Run everything on this machine: control Redis, workers, schedule. Ctrl-C stops it all.

    \b
    Example:
      recovery up
    """
    from recovery import embedded

    with ExitStack() as stack:
        house = _House(stack, loglevel, deaf_after)
        lock = house.hold("up")
        if house.environment.is_embedded:
            house.add(embedded.program(house.environment, holds=lock))
        house.add_worker("dispatch", ["dispatch", *bare_queues()], 1)
        for component in house.policy.components:
            queues = [component, f"{component}.{house.environment.host}"]
            # Whoever repairs the Redis of many must not wait for another repair.
            house.add_worker(component, queues, 2 if component == "redis" else 1)
        # Two, so that a channel that keeps an alert waiting never keeps the maintenance waiting.
        house.add_worker("upkeep", _upkeep_queues(house.environment.host), 2, beat=True)
        house.add_probes("probes", host_queues())
        house.add_guard()
        house.add_http()
        click.echo(f"policy: {house.policy.file}")
        click.echo(f"control plane: {house.environment.shown_control_url}")
        click.echo("up: stop with Ctrl-C or SIGTERM")
        house.run(grace)
        click.echo("down")


class _House:
    """What one supervisor keeps running on this host."""

    def __init__(self, stack: ExitStack, loglevel: str, deaf_after: float) -> None:
        from recovery import logs
        from recovery.config import Environment

        logs.configure(loglevel.upper())
        self.environment: Environment = Environment.read()
        self.policy: Policy = session.policy()
        self._stack = stack
        self._loglevel = loglevel
        self._deaf_after = deaf_after
        self._programs: list[Program] = []
        self._say_whose_rights()

    def _say_whose_rights(self) -> None:
        from structlog import get_logger

        if os.geteuid() == 0:
            get_logger().warning("runs as root: every remedy has root's rights here")

    def hold(self, name: str) -> int:
        """Be the only one of that name on this state directory; raises ``SetupError``."""
        from recovery.instance import only_one

        return self._stack.enter_context(only_one(self.environment.state_dir, name))

    def add(self, program: Program | None) -> None:
        if program is not None:
            self._programs.append(program)

    def add_probes(self, name: str, queues: list[str]) -> None:
        """A process that looks at the targets of these queues; none where nobody wants that."""
        if looked_at := probe_queues(queues):
            self.add_worker(name, looked_at, ROUNDS, pool="threads")

    def add_worker(
        self,
        name: str,
        queues: list[str],
        concurrency: int,
        *,
        beat: bool = False,
        pool: str = "prefork",
    ) -> None:
        from recovery import liveness, producer
        from recovery.supervisor import Program

        self.hold(f"worker-{name}")
        node = f"{name}@{self.environment.host}"
        _, longest = producer.time_limits(self.policy.longest_timeout_seconds)
        pulse = liveness.Pulse(
            partial(producer.send_pulse, node),
            partial(producer.forget_pulses, node),
            deaf_seconds=self._deaf_after,
            full_seconds=longest + self._deaf_after,
        )
        command = worker_command(
            node, queues, concurrency, beat=beat, loglevel=self._loglevel, pool=pool
        )
        self.add(Program(name=name, command=command, watch=pulse))

    def introduce(self) -> None:
        """Say which targets are this host's own: one that has another name waits for nothing."""
        from structlog import get_logger

        host, policy, log = self.environment.host, self.policy, get_logger()
        hosts = sorted(
            {found for ref in policy.target_refs() if (found := policy.target(ref).host)}
        )
        if own := policy.targets_of(host):
            log.info("this host's own targets", host=host, targets=[str(ref) for ref in own])
        elif hosts:
            log.warning("no target of the policy is this host's", host=host, named=hosts)

    def add_guard(self) -> None:
        from recovery.supervisor import Program

        if command := guard_command(self.policy):
            self.add(Program(name="guard", command=command))

    def add_http(self) -> None:
        """The HTTP side, where the policy wants it and what it needs is installed."""
        from recovery.supervisor import Program

        if not self.policy.http.enabled:
            return
        if lacking := serving.missing():
            click.echo(f"no status page and no API: {serving.REMEDY} ({', '.join(lacking)})")
            return
        self.add(Program(name="http", command=serving.command("--loglevel", self._loglevel)))

    def run(self, grace: float | None) -> None:
        from recovery.supervisor import Supervisor
        from recovery.systemd import ServiceManager

        if grace is None:
            grace = self.policy.longest_timeout_seconds + GRACE_MARGIN_SECONDS
        manager = ServiceManager.from_environment()
        Supervisor(programs=self._programs, grace_seconds=grace, manager=manager).run()


def _upkeep_queues(host: str) -> list[str]:
    from recovery import producer

    return ["maintenance", producer.maintenance_queue(host), "notify"]


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

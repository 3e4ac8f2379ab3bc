"""``recovery worker`` and ``recovery up``: one of each, all of it stopped, nothing left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from recovery import registry
from recovery.cli import main
from recovery.config import Environment, load_policy
from recovery.controlplane import ControlPlane
from recovery.embedded import answers
from tests.cli.test_commands import recovery
from tests.fleet import ROOT
from tests.servers import RedisServer
from tests.stack import Stack
from tests.supervising import Supervised, supervised
from tests.waiting import until

COMMAND = ("-c", "from recovery.cli import main; main()")
UP_WORKERS = 3


@pytest.fixture
def embedded(stack: Stack, tmp_path: Path) -> Environment:
    """The stack without a configured control Redis: ``up`` brings its own."""
    del stack.environ["RECOVERY_REDIS_URL"]
    stack.environ["RECOVERY_STATE_DIR"] = str(tmp_path / "s")
    environment = Environment.read(stack.environ)
    stack.control = ControlPlane.connect(environment)
    stack.app.conf.broker_url = environment.celery_broker_url
    return environment


@pytest.fixture
def run(stack: Stack, tmp_path: Path) -> Any:
    def start(*arguments: str) -> AbstractContextManager[Supervised]:
        return supervised(tmp_path, *COMMAND, *arguments, environ=stack.environ)

    return start


def wait_for_workers(stack: Stack, environment: Environment) -> None:
    until(lambda: answers(environment), seconds=20, what="the control Redis answers")
    until(
        lambda: len(registry.workers(stack.control)) == UP_WORKERS,
        seconds=30,
        what="all workers are registered",
    )


def everything_ended(family: list[psutil.Process]) -> bool:
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family)


@pytest.mark.slow
def test_up_consumes_every_queue_of_the_policy(
    stack: Stack, embedded: Environment, run: Any
) -> None:
    document = yaml.safe_load(stack.policy_file.read_text())
    document["recovery"]["chromadb"] = {"strategies": [{"name": "query_retry"}]}
    document["recovery"]["openwebui"] = {"strategies": [{"name": "token_refresh"}]}
    stack.policy_file.write_text(yaml.safe_dump(document))
    wanted = registry.queues_of(load_policy(stack.policy_file))
    assert {"redis", "chromadb", "openwebui"} <= set(wanted)

    def left() -> tuple[str, ...]:
        return registry.unconsumed(wanted, registry.workers(stack.control))

    with run("up"):
        until(lambda: answers(embedded), seconds=20, what="the control Redis answers")
        until(lambda: not left(), seconds=60, what="every queue is consumed")


@pytest.mark.slow
def test_up_repairs_and_ends_with_nothing_left(
    stack: Stack, embedded: Environment, run: Any
) -> None:
    with run("up") as up:
        wait_for_workers(stack, embedded)
        stack.exhaust_clients()
        record = stack.concluded(stack.trigger("connection_error"))
        family = up.family()

        up.send_signal(signal.SIGTERM)
        up.process.wait(40)

    assert record.outcome is not None
    assert record.outcome.result.is_good, up.said()
    assert up.process.returncode == 0
    assert everything_ended(family)
    assert not embedded.socket_path.exists()


@pytest.mark.slow
def test_a_second_up_on_the_same_state_directory_is_refused(
    stack: Stack, embedded: Environment, run: Any
) -> None:
    with run("up") as up:
        until(lambda: answers(embedded), seconds=20, what="the control Redis answers")

        refused = recovery(stack, "up")

    assert refused.returncode == 8
    assert f"already runs on {embedded.state_dir}: process {up.process.pid}" in refused.stderr


@pytest.mark.kill
@pytest.mark.slow
def test_a_killed_up_leaves_nothing_and_the_next_one_starts(
    stack: Stack, embedded: Environment, run: Any
) -> None:
    with run("up") as up:
        wait_for_workers(stack, embedded)
        family = up.family()

        up.send_signal(signal.SIGKILL)
        up.process.wait()
        with run("up"):
            until(lambda: answers(embedded), seconds=30, what="the next control Redis answers")
            until(lambda: everything_ended(family), seconds=40, what="the first one's end")
            wait_for_workers(stack, embedded)


@pytest.mark.kill
@pytest.mark.slow
def test_up_brings_a_killed_control_redis_back(
    stack: Stack, embedded: Environment, run: Any
) -> None:
    with run("up") as up:
        wait_for_workers(stack, embedded)
        before = up.mains()
        server = next(one for one in up.family() if "redis-server" in one.cmdline()[0])

        server.kill()

        until(lambda: "ended, starts again" in up.said(), what="it is noticed")
        until(lambda: answers(embedded), seconds=20, what="the control Redis answers again")
        assert stack.concluded(stack.trigger("connection_error")).outcome is not None
        assert len(set(up.mains()) & set(before)) == UP_WORKERS + len(("guard", "http"))


def test_up_says_why_its_control_redis_does_not_start(stack: Stack, embedded: Environment) -> None:
    stack.environ["RECOVERY_REDIS_SERVER"] = "false"

    refused = recovery(stack, "up")

    assert refused.returncode == 8
    assert "control did not start: exit 1; see" in refused.stderr


def test_two_workers_of_one_name_are_one_too_many(stack: Stack, run: Any) -> None:
    with run("worker", "--name", "same", "--queues", "redis", "--concurrency", "1") as first:
        until(lambda: "event=started" in first.said(), what="the first one runs")

        refused = recovery(stack, "worker", "--name", "same", "--queues", "notify")

    assert refused.returncode == 8
    assert "recovery worker-same already runs" in refused.stderr


def test_a_state_directory_that_cannot_be_made_is_said(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    stack.environ["RECOVERY_STATE_DIR"] = str(tmp_path / "file" / "below")

    refused = recovery(stack, "worker")

    assert refused.returncode == 8
    assert "cannot use the state directory" in refused.stderr


@pytest.mark.slow
def test_a_queue_that_nothing_is_sent_to_is_no_queue_of_a_worker(stack: Stack) -> None:
    answer = recovery(stack, "worker", "--queues", "redis,sytem.web-1")

    assert answer.returncode == 2
    assert "sytem.web-1" in answer.stderr
    assert "system" in answer.stderr


def test_a_worker_waits_for_a_broker_that_is_not_there_yet(
    stack: Stack, run: Any, control_redis: RedisServer
) -> None:
    control_redis.stop()
    with run("worker", "--queues", "redis", "--concurrency", "1") as found:
        until(lambda: "Cannot connect" in found.said(), seconds=20, what="it tries")
        started = found.mains()

        control_redis.start()

        until(lambda: registry.workers(stack.control), seconds=20, what="it is registered")
        assert found.mains() == started
        until(lambda: stack.control.redis.keys("*pulse*"), what="its pulse has a queue")
        found.send_signal(signal.SIGTERM)
        found.process.wait(40)
    assert registry.workers(stack.control) == ()
    assert stack.control.redis.keys("*pulse*") == []


UNITS = sorted((ROOT / "compose" / "systemd").glob("*.service"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_a_command_that_there_is(unit: Path) -> None:
    (line,) = (line for line in unit.read_text().splitlines() if line.startswith("ExecStart="))
    _, name, *options = line.split()

    command = main.commands[name]

    known = {flag for option in command.params for flag in option.opts}
    assert {option for option in options if option.startswith("--")} <= known
    # Supervisors tell systemd that all of theirs has started; the others have nothing to wait for.
    kind = "notify" if name in ("up", "worker") else "exec"
    assert f"Type={kind}" in unit.read_text()


@pytest.mark.slow
def test_the_ticks_of_the_schedule_leave_no_line(stack: Stack, run: Any) -> None:
    queues = "dispatch,redis,maintenance,notify"
    with run("worker", "--queues", queues, "--beat") as found:
        until(lambda: registry.workers(stack.control), seconds=30, what="it is registered")
        identity = stack.trigger("connection_error")
        assert stack.concluded(identity).outcome is not None
        until(lambda: ticks(stack) >= 2, seconds=20, what="two ticks ran")
        said = found.said()

    assert identity in said
    for line in ("received", "succeeded", "Sending due task"):
        assert line not in said


@pytest.mark.parametrize(("level", "is_shown"), [("INFO", False), ("DEBUG", True)])
def test_lines_of_each_message_and_request_are_shown_to_who_asks(
    level: str, is_shown: bool
) -> None:
    program = f"""
import logging
from recovery import logs
logs.configure("{level}")
for name in ("celery.app.trace", "celery.beat", "celery.worker.strategy", "httpx"):
    logging.getLogger(name).info("a tick")
logging.getLogger("celery.app.trace").error("a crash")
"""
    said = subprocess.run(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, check=True
    ).stderr

    assert said.count("a tick") == (4 if is_shown else 0)
    assert "a crash" in said


def ticks(stack: Stack) -> int:
    counted = stack.app.control.inspect(timeout=0.5).stats() or {}
    return sum(one["total"].get("recovery.reconcile", 0) for one in counted.values())


def test_the_workers_are_listed_with_the_queues_that_nobody_consumes(stack: Stack) -> None:
    living = registry.Worker(
        node="w@web-1",
        host="web-1",
        pid=os.getpid(),
        version="0",
        queues=("dispatch", "redis"),
        concurrency=2,
        active=1,
    )
    registry.register(stack.control, living)

    shown = recovery(stack, "workers")

    assert shown.returncode == 0, shown.stderr
    assert "w@web-1" in shown.stdout
    assert "1/2" in shown.stdout
    assert "Nobody consumes: maintenance, notify" in shown.stdout
    # A command may take its time on a loaded machine, and whoever is silent counts as dead.
    registry.register(stack.control, living)
    listed = json.loads(recovery(stack, "workers", "--json").stdout)
    assert [one["node"] for one in listed["workers"]] == ["w@web-1"]
    assert listed["unconsumed_queues"] == ["maintenance", "notify"]

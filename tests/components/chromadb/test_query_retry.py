"""``chromadb.query_retry`` on servers that are away for a while, and on what no asking cures."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from recovery.components.chromadb.probe import probe
from recovery.components.chromadb.query_retry import query_retry
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import RemedyError, TargetRefused, TargetUnreachable
from recovery.events import Result, Stage
from recovery.strategy import Parameters
from tests.chroma import (
    ChromaDirectory,
    ContainedChroma,
    ManagedChroma,
    ServedChroma,
    gate,
    noise,
)
from tests.fleet import Fleet
from tests.journals import MemoryJournal
from tests.stack import Stack
from tests.waiting import until


def run(target: ChromaTarget, **said: Any) -> MemoryJournal:
    journal = MemoryJournal(**{"seconds": 20, **said})
    query_retry.remedy(target, Parameters(), journal)
    return journal


def test_a_server_that_is_back_is_queried_and_applications_hear_of_it(
    chroma_server: ServedChroma,
) -> None:
    chroma_server.send_signal(signal.SIGSTOP)
    with pytest.raises(TargetUnreachable, match="no answer"):
        run(ChromaTarget(url=chroma_server.url, answer_timeout=0.2))

    chroma_server.send_signal(signal.SIGCONT)
    journal = run(ChromaTarget(url=chroma_server.url, answer_timeout=10))

    assert journal.notices == ["retry_queries"]
    assert journal.steps[0].figures["queried"]


def test_a_dead_server_may_come_back(chroma_server: ServedChroma) -> None:
    chroma_server.kill()
    with pytest.raises(TargetUnreachable):
        run(ChromaTarget(url=chroma_server.url))

    chroma_server.start()

    assert run(ChromaTarget(url=chroma_server.url)).notices == ["retry_queries"]


def test_a_server_whose_process_was_killed_is_started(managed_chroma: ManagedChroma) -> None:
    target = managed_chroma.target(path=None, answer_timeout=10)
    managed_chroma.kill()
    assert probe(target, 10).failure_type == "connection_error"

    journal = run(target, seconds=90)

    assert "server started" in journal.texts
    assert journal.notices == ["retry_queries"]
    assert probe(target, 30).healthy


def test_a_server_that_hangs_is_not_started_a_second_time(managed_chroma: ManagedChroma) -> None:
    target = managed_chroma.target(path=None, answer_timeout=0.2)
    pid = managed_chroma.process.inspect().pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)

    with pytest.raises(TargetUnreachable):
        run(target)

    assert managed_chroma.process.inspect().pid == pid
    os.kill(pid, signal.SIGCONT)


@pytest.mark.docker
def test_a_container_that_was_killed_is_started(
    chroma_container: ContainedChroma,
) -> None:
    target = chroma_container.target()
    assert probe(target, 30).healthy
    chroma_container.container.kill()
    until(lambda: not chroma_container.served.answers(), what="it is gone")
    assert probe(target, 10).failure_type == "connection_error"

    journal = run(target, seconds=120)

    assert journal.steps[1].figures["state"] == "exited, exit code 137"
    assert probe(target, 30).healthy


def test_a_container_that_nobody_knows_may_come_back(chroma_server: ServedChroma) -> None:
    """As between the two steps by which others replace one."""
    runtime = {"kind": "command", "name": "gone", "start": ["/nowhere/chroma"], "folder": "/tmp"}
    chroma_server.kill()

    with pytest.raises(TargetUnreachable):
        run(ChromaTarget(url=chroma_server.url, runtime=runtime))


def test_one_look_leaves_time_for_the_one_that_proves_it(chroma_server: ServedChroma) -> None:
    """The database is locked, so that every look takes all the time that it is given."""
    with chroma_server.directory.locked():
        journal = MemoryJournal(seconds=6)
        with pytest.raises(TargetUnreachable):
            query_retry.remedy(ChromaTarget(url=chroma_server.url), Parameters(), journal)

    assert journal.deadline.left() > 0


def test_what_asking_again_cannot_cure_is_left_to_other_remedies(
    chroma_directory: ChromaDirectory,
) -> None:
    noise(chroma_directory.segment / "data_level0.bin")

    with pytest.raises(RemedyError, match="cannot help") as caught:
        run(ChromaTarget(path=chroma_directory.path))

    assert not caught.value.transient


def test_a_refused_token_is_not_sent_again(chroma_server: ServedChroma) -> None:
    with gate(chroma_server, "Authorization", "Bearer right") as url, pytest.raises(TargetRefused):
        run(ChromaTarget(url=url))


@pytest.fixture
def policy_options(chroma_server: ServedChroma) -> dict[str, Any]:
    block = {
        "targets": {"default": {"url": chroma_server.url, "collections": {"docs": 0}}},
        "strategies": [
            {
                "name": "query_retry",
                # The retries are what is tested; on a loaded machine they take long.
                "timeout_seconds": 60,
                "max_retries": 100,
                "backoff_seconds": 0.1,
                "backoff_multiplier": 1,
                "conditions": ["connection_timeout"],
            }
        ],
    }
    return {"recovery": {"chromadb": block}}


@pytest.mark.slow
def test_a_server_that_hangs_for_a_while_is_recovered_through_the_broker(
    chroma_server: ServedChroma, stack: Stack, fleet: Fleet
) -> None:
    fleet.start(queues=("dispatch", "chromadb", "notify", "maintenance"))
    chroma_server.send_signal(signal.SIGSTOP)

    recovery_id = stack.trigger("connection_timeout", component="chromadb")
    until(lambda: has_tried(stack, recovery_id), seconds=30, what="an attempt has failed")
    chroma_server.send_signal(signal.SIGCONT)
    outcome = stack.concluded(recovery_id, seconds=60).outcome

    assert outcome is not None
    assert outcome.result is Result.RECOVERED, fleet.logs()
    assert outcome.before is not None
    assert outcome.before.failure_type == "connection_timeout"
    assert outcome.after is not None
    assert outcome.after.figures["queried"]


def has_tried(stack: Stack, recovery_id: str) -> bool:
    record = stack.record(recovery_id)
    return record is not None and record.attempts > 0 and record.stage is Stage.CLAIMED

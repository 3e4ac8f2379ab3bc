"""Stopping and starting the process of a Chroma server, as its policy says it is run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from pydantic import ValidationError

from recovery.components.chromadb.server import ServerProcess
from recovery.components.chromadb.target import ChromaTarget
from recovery.deadline import Deadline
from recovery.errors import NotConfigured, WontStart, WrongProcess
from tests.chroma import ManagedChroma, ServedChroma, truncate


def opened(target: ChromaTarget, seconds: float = 60) -> ServerProcess:
    return ServerProcess(target, Deadline(seconds).remaining)


def test_a_chroma_server_is_stopped_and_started_until_it_answers(
    managed_chroma: ManagedChroma,
) -> None:
    server = opened(managed_chroma.target())
    before = server.inspect()
    assert before.running

    server.stop()
    assert not server.inspect().running
    assert not managed_chroma.served.answers()
    server.stop()

    server.start()
    assert managed_chroma.served.answers()
    after = server.inspect()
    server.start()
    assert server.inspect().id == after.id != before.id


def test_a_chroma_server_that_ignores_term_is_killed_when_its_grace_is_over(
    managed_chroma: ManagedChroma,
) -> None:
    server = opened(managed_chroma.target())
    pid = server.inspect().pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)

    server.stop(0.3)

    assert not server.inspect().running


def test_a_url_that_another_server_answers_is_not_believed(
    managed_chroma: ManagedChroma, tmp_path: Path
) -> None:
    other = ServedChroma(managed_chroma.directory.copy(tmp_path / "other" / "chroma")).start()

    with pytest.raises(WrongProcess, match="different servers"):
        opened(managed_chroma.target(url=other.url)).stop()

    other.stop()


def test_a_chroma_server_that_ends_at_once_is_not_waited_for(managed_chroma: ManagedChroma) -> None:
    server = opened(managed_chroma.target())
    server.stop()
    truncate(managed_chroma.directory.database)

    with pytest.raises(WontStart, match="ended"):
        server.start()


def test_how_a_chroma_server_is_run_must_be_in_the_policy(managed_chroma: ManagedChroma) -> None:
    with pytest.raises(NotConfigured, match="runtime"):
        opened(managed_chroma.target(runtime=None))
    with pytest.raises(ValidationError, match="give its url"):
        managed_chroma.target(url=None)

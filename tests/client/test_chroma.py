"""An application that opens a Chroma directory itself, and is asked to open it anew."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from recovery.client.chroma import Reloading
from recovery.controlplane import ControlPlane
from tests.chroma import COUNT, ROOT, ChromaDirectory, ask
from tests.servers import RedisServer
from tests.waiting import until

Ask = Callable[[str], dict[str, Any]]


@pytest.fixture
def application(chroma_directory: ChromaDirectory, control_redis: RedisServer) -> Iterator[Ask]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.client.chroma_application", str(chroma_directory.path)],
        cwd=ROOT,
        env={**os.environ, "RECOVERY_REDIS_URL": control_redis.url},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def ask_it(line: str) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
        seen: dict[str, Any] = json.loads(process.stdout.readline())
        return seen

    yield ask_it
    process.kill()
    process.communicate()


def test_an_application_sees_a_replaced_directory_after_the_notice_and_not_before(
    application: Ask,
    chroma_directory: ChromaDirectory,
    control: ControlPlane,
    tmp_path: Path,
) -> None:
    until(lambda: application("?")["hears"] is not None, seconds=60, what="it listens")
    newer = chroma_directory.copy(tmp_path / "newer" / "chroma")
    assert ask("add", newer.path, ids=["newer"], seed=1).returncode == 0
    chroma_directory.path.rename(tmp_path / "old")
    newer.path.rename(chroma_directory.path)
    assert application("?") | {"hears": None} == {"count": COUNT, "opened": 1, "hears": None}

    notice = {"target": "chromadb/local", "notice": "reload_collections", "id": "1"}
    control.redis.publish(control.key("notices"), json.dumps(notice))

    until(lambda: application("?")["count"] == COUNT + 1, seconds=30, what="it sees the new one")
    assert application("?")["opened"] == 2


def test_a_collection_that_was_made_anew_is_found_by_its_name(application: Ask) -> None:
    assert application("?")["count"] == COUNT

    assert application("anew")["count"] == 1


class Opened:
    """Stands for a client: counts, and is closed."""

    def __init__(self) -> None:
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


def test_what_is_under_way_ends_on_what_it_began_with() -> None:
    reloading = Reloading(Opened)
    others: list[Opened] = []

    def use() -> None:
        with reloading.client() as client:
            others.append(client)

    with reloading.client() as first:
        reloading.renew()
        late = threading.Thread(target=use)
        late.start()
        late.join(0.2)
        assert late.is_alive(), "it waits until the files are opened anew"
        assert not first.is_closed
    late.join(30)

    assert first.is_closed
    assert others[0] is not first
    assert reloading.opened == 2


def test_a_client_that_cannot_be_opened_is_tried_again_at_the_next_call() -> None:
    tries = iter([OSError("locked"), Opened()])

    def open_client() -> Any:
        found = next(tries)
        if isinstance(found, OSError):
            raise found
        return found

    reloading = Reloading(open_client)
    with pytest.raises(OSError, match="locked"), reloading.client():
        pass

    with reloading.client() as client:
        assert not client.is_closed

"""A resolver that never answers ends with the time of whoever asks, on every road to a server."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import httpcore
import pytest

from recovery.components.chromadb import probe as chromadb_probe
from recovery.components.chromadb.editing import ChromaEditor
from recovery.components.chromadb.evidence import evidence
from recovery.components.chromadb.snapshots import taking
from recovery.components.chromadb.target import ChromaTarget
from recovery.components.openwebui.conversation import Conversation
from recovery.components.openwebui.findings import Unanswered
from recovery.components.openwebui.probe import light
from recovery.components.openwebui.target import OpenWebuiTarget
from recovery.errors import TargetUnreachable
from recovery.reaching import Bounded
from recovery.resolving import addresses
from tests.resolver import NAME, silence
from tests.servers import free_port

__all__ = ["silence"]

LONGEST = 30.0


def test_whoever_asks_waits_as_long_as_its_own_time_and_shares_the_look_up(
    silence: list[Any],
) -> None:
    for _ in range(5):
        with pytest.raises(TimeoutError, match="resolver says nothing"):
            addresses(NAME, 0.05)

    assert silence == [NAME]
    assert addresses("127.0.0.1", 0.05) == ["127.0.0.1"]
    assert "127.0.0.1" in addresses("localhost", LONGEST)


def test_a_name_that_is_none_is_said() -> None:
    for name in ("no-such-name.invalid", "a" * 300, ".."):
        with pytest.raises(OSError, match=r"."):
            addresses(name, LONGEST)


def test_the_probe_of_an_open_webui_ends_in_its_time(silence: list[Any]) -> None:
    target = OpenWebuiTarget(base_url=f"http://{NAME}:8080", answer_timeout="1h")
    began = time.monotonic()

    found = light(target, 0.5)

    assert found.failure_type == "connection_timeout", found.summary
    assert time.monotonic() - began < LONGEST


@pytest.fixture
def unresolved() -> ChromaTarget:
    return ChromaTarget(url=f"http://{NAME}:8000", answer_timeout=0.3)


def test_every_look_at_a_chroma_ends_in_its_time(
    silence: list[Any], unresolved: ChromaTarget
) -> None:
    """The resolver hangs for two minutes; whoever returns before did not wait for it."""
    for look in (chromadb_probe.light, chromadb_probe.probe):
        found = look(unresolved, LONGEST)
        assert found.failure_type == "connection_timeout", found.summary
    assert "unavailable" in evidence(unresolved, 0.3)["server"]
    assert silence == [NAME]


def test_every_change_of_a_chroma_ends_in_its_time(
    silence: list[Any], unresolved: ChromaTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECOVERY_STATE_DIR", str(tmp_path / "state"))
    settings = {"directory": tmp_path / "snapshots", "timeout": 0.5}
    with_snapshots = ChromaTarget(url=unresolved.url, snapshots=settings)

    with ChromaEditor.of(unresolved, 0.3) as editor, pytest.raises(TargetUnreachable):
        editor.all()
    with pytest.raises(TargetUnreachable):
        taking.take(with_snapshots, "chromadb/default")
    assert silence == [NAME]


def test_a_server_that_is_found_again_is_reached_by_its_second_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr("recovery.reaching.addresses", lambda *_: ["127.0.0.2", "127.0.0.1"])
        stream = Bounded(httpcore.SyncBackend()).connect_tcp(NAME, port, LONGEST)
        stream.close()


def test_no_address_that_answers_is_one_clear_failure() -> None:
    with (
        Conversation(f"http://localhost:{free_port()}", LONGEST) as conversation,
        pytest.raises(Unanswered) as caught,
    ):
        conversation.get("/health", LONGEST)

    assert caught.value.finding.failure_type == "service_unavailable"

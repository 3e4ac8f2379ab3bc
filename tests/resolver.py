"""A resolver that never answers, as where its server is cut off."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.waiting import until

NAME = "chat.example.com"


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The system's resolver says nothing of ``NAME``, as where its server is cut off."""
    over, asked, ask = threading.Event(), list[Any](), socket.getaddrinfo

    def resolve(host: Any, *args: Any, **said: Any) -> Any:
        if host not in (NAME, NAME.encode()):
            return ask(host, *args, **said)
        asked.append(host)
        assert over.wait(120)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    yield asked
    over.set()
    until(
        lambda: not any(NAME in one.name for one in threading.enumerate()), what="all threads end"
    )

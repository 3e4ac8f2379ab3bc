"""The Open WebUI that a test runs against: the one that stands for it, or a real one."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import httpx

from tests.openwebui import EMAIL, PASSWORD, OpenWebui
from tests.upstreams import OpenAiUpstream
from tests.waiting import until

MODELS = ("llama-3", "deepseek-chat", "gemini-pro", "gpt-4-turbo")
START_SECONDS = 300.0


class Instance(ABC):
    """Where it is, whose account is used, and the model server behind it."""

    url: str
    email: str
    password: str
    upstream: OpenAiUpstream

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def kill(self) -> None: ...

    def sign_in(self) -> str:
        said = {"email": self.email, "password": self.password}
        answer = httpx.post(f"{self.url}/api/v1/auths/signin", json=said, timeout=30)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"])

    def api_key(self) -> str:
        headers = {"Authorization": f"Bearer {self.sign_in()}"}
        answer = httpx.post(f"{self.url}/api/v1/auths/api_key", headers=headers, timeout=30)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["api_key"])


class StandIn(Instance):
    def __init__(self, server: OpenWebui) -> None:
        self.server = server
        self.url, self.email, self.password = server.url, EMAIL, PASSWORD
        self.upstream = server.upstream

    def start(self) -> None:
        self.server.start()

    def kill(self) -> None:
        self.server.kill()


@dataclass
class Real(Instance):
    """``command`` starts it at ``url``; without one it runs already, and is not killed."""

    url: str
    email: str
    password: str
    upstream: OpenAiUpstream
    command: str | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)

    def api_key(self) -> str:
        """One for all tests: its limiter takes fifteen sign-ins in three minutes."""
        self.key = self.key or super().api_key()
        return self.key

    def start(self) -> None:
        if self.command is None or self.process is not None:
            return
        self.process = subprocess.Popen(
            shlex.split(self.command),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until(self.is_ready, seconds=START_SECONDS, what=f"{self.url} is ready")

    def kill(self) -> None:
        if self.process is None:
            return
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def is_ready(self) -> bool:
        assert self.process is None or self.process.poll() is None, "it ended by itself"
        try:
            answer = httpx.get(f"{self.url}/ready", timeout=5)
            return answer.status_code == 200 and answer.json() == {"status": True}
        except (httpx.HTTPError, ValueError):
            return False


def real() -> Real | None:
    """By the environment: ``RECOVERY_OPENWEBUI_URL``, ``_EMAIL``, ``_PASSWORD``, and
    ``_UPSTREAM_PORT``, where it expects a model server whose key is ``tests.upstreams.KEY``.

    With ``_COMMAND`` it is started by it, and may be killed.
    """
    said = {name: os.environ.get(f"RECOVERY_OPENWEBUI_{name.upper()}") for name in _NAMES}
    if said["url"] is None:
        return None
    upstream = OpenAiUpstream(*MODELS)
    upstream.server.port = int(said["upstream_port"] or 0)
    return Real(
        url=said["url"],
        email=said["email"] or "",
        password=said["password"] or "",
        command=said["command"],
        upstream=upstream,
    )


_NAMES = ("url", "email", "password", "upstream_port", "command")

"""The Open WebUI that a test runs against: the one that stands for it, or a real one."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import httpx

from tests.openwebui import EMAIL, PASSWORD, OpenWebui
from tests.upstreams import OpenAiUpstream

MODELS = ("llama-3", "deepseek-chat", "gemini-pro", "gpt-4-turbo")


@dataclass
class Instance:
    """Where it is, whose account is used, and the model server behind it."""

    url: str
    email: str
    password: str
    upstream: OpenAiUpstream
    _tokens: list[str] = field(default_factory=list)

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


def standing_in(server: OpenWebui) -> Instance:
    return Instance(url=server.url, email=EMAIL, password=PASSWORD, upstream=server.upstream)


def real() -> Instance | None:
    """``RECOVERY_OPENWEBUI_UPSTREAM_PORT``: where the instance expects its model server, whose key
    is ``tests.upstreams.KEY``."""
    url = os.environ.get("RECOVERY_OPENWEBUI_URL")
    if url is None:
        return None
    upstream = OpenAiUpstream(*MODELS)
    upstream.server.port = int(os.environ["RECOVERY_OPENWEBUI_UPSTREAM_PORT"])
    return Instance(
        url=url,
        email=os.environ["RECOVERY_OPENWEBUI_EMAIL"],
        password=os.environ["RECOVERY_OPENWEBUI_PASSWORD"],
        upstream=upstream,
    )

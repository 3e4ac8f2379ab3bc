"""``recovery serve`` as a process: what it needs, how it stops; and within ``recovery up``."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.http.conftest import TOKEN
from tests.servers import free_port
from tests.stack import Stack
from tests.supervising import supervised
from tests.waiting import until

COMMAND = ("-c", "from recovery.cli import main; main()")


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_it_serves_and_stops_when_it_is_told_to_even_with_a_stream_open(
    stack: Stack, tmp_path: Path
) -> None:
    port = free_port()
    with supervised(
        tmp_path, *COMMAND, "serve", "--port", str(port), environ=stack.environ
    ) as served:
        until(lambda: answers(port), seconds=80, what="it serves")
        token = (Path(stack.environ["RECOVERY_STATE_DIR"]) / "http-token").read_text().strip()
        enabled = httpx.post(
            f"http://127.0.0.1:{port}/api/v1/enable",
            json={"by": "eva"},
            headers={"authorization": f"Bearer {token}"},
        )
        assert enabled.json() == {"scope": "all", "was_disabled": False}
        with httpx.stream("GET", f"http://127.0.0.1:{port}/events") as stream:
            assert next(stream.iter_lines())
            served.send_signal(signal.SIGTERM)
            assert served.process.wait(30) == 0
        assert token not in served.said()


@pytest.mark.parametrize(
    ("arguments", "environ", "code", "says"),
    [
        (("--host", "0.0.0.0"), {}, 6, "no token is configured"),
        ((), {"RECOVERY_HTTP_TOKEN": "short"}, 6, "shorter than 16"),
        ((), {"RECOVERY_HTTP_PORT": "x"}, 6, "no port"),
        (("--host", "192.0.2.1"), {"RECOVERY_HTTP_TOKEN": TOKEN}, 8, "cannot listen"),
    ],
)
def test_what_it_cannot_serve_with_is_said(
    stack: Stack,
    tmp_path: Path,
    arguments: tuple[str, ...],
    environ: dict[str, str],
    code: int,
    says: str,
) -> None:
    with supervised(
        tmp_path, *COMMAND, "serve", *arguments, environ={**stack.environ, **environ}
    ) as served:
        assert served.process.wait(80) == code
        assert says in served.said()
        assert TOKEN not in served.said()


@pytest.mark.parametrize("policy_options", [{}, {"sections": {"http": {"enabled": False}}}])
def test_up_serves_unless_the_policy_says_otherwise(
    stack: Stack, tmp_path: Path, policy_options: dict[str, object]
) -> None:
    port = int(stack.environ["RECOVERY_HTTP_PORT"])
    with supervised(tmp_path, *COMMAND, "up", environ=stack.environ) as up:
        if policy_options:
            until(
                lambda: "recovery.failsafe" in commands(up.mains()),
                seconds=80,
                what="the last of the others is started",
            )
            assert "recovery.http" not in commands(up.mains())
        else:
            until(lambda: answers(port), seconds=80, what="it serves")
            assert "recovery.http" in commands(up.mains())


def commands(pids: list[int]) -> str:
    found = []
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            found.append(Path(f"/proc/{pid}/cmdline").read_text())
    return "\n".join(found)


def test_what_is_not_installed_is_said(stack: Stack, tmp_path: Path) -> None:
    program = (
        "import recovery.cli.serving as s; s.NEEDED += ('no_such_module',); "
        "from recovery.cli import main; main(['serve'])"
    )
    with supervised(tmp_path, "-c", program, environ={**os.environ, **stack.environ}) as served:
        assert served.process.wait(80) == 8
        assert "pip install 'llm-stack-recovery[http]' (no_such_module)" in served.said()

"""The block ``runtime`` of a target, as a policy file says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recovery.config import presentation
from recovery.errors import ConfigError
from recovery.events import TargetRef
from recovery.runtime import CommandRuntime, DockerRuntime, SupervisorRuntime, SystemdRuntime
from tests.policies import make_policy


def loaded(folder: Path, runtime: dict[str, Any]) -> Any:
    policy = make_policy(folder, {"default": {"runtime": runtime}})
    return policy.target(TargetRef("redis")).runtime  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("block", "kind"),
    [
        ({"kind": "docker", "container": "cache"}, DockerRuntime),
        ({"kind": "docker", "labels": {"com.docker.compose.service": "redis"}}, DockerRuntime),
        ({"kind": "systemd", "unit": "redis-server.service"}, SystemdRuntime),
        ({"kind": "supervisor", "program": "redis"}, SupervisorRuntime),
        ({"kind": "command", "name": "redis", "start": ["redis-server", ""]}, CommandRuntime),
    ],
)
def test_each_kind_is_read(tmp_path: Path, block: dict[str, Any], kind: type) -> None:
    assert isinstance(loaded(tmp_path, block), kind)


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ({"kind": "command", "name": "r", "start": "redis-server &"}, "list of arguments"),
        ({"kind": "command", "name": "r", "start": []}, "begin with a program"),
        ({"kind": "command", "name": "../r", "start": ["true"]}, "name"),
        (
            {"kind": "command", "name": "r", "start": ["true"], "start_returns": True},
            "needs stop and status",
        ),
        ({"kind": "command", "name": "r", "start": ["a"], "status": ["b"]}, "the pid file tells"),
        ({"kind": "docker"}, "either container or labels"),
        ({"kind": "docker", "containr": "cache"}, "did you mean container"),
        ({"kind": "systemd", "unit": "--help"}, "unit"),
        ({"kind": "supervisor", "program": "r", "url": "http://me:pw@h"}, "credentials"),
        ({"kind": "kubernetes"}, "docker, systemd, supervisor, command"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, block: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem) as refused:
        loaded(tmp_path, block)
    assert "pw" not in str(refused.value)


def test_a_password_is_masked(tmp_path: Path) -> None:
    block = {"kind": "supervisor", "program": "redis", "username": "me", "password": "secret"}

    shown = presentation.effective(make_policy(tmp_path, {"default": {"runtime": block}}))

    assert "secret" not in str(shown)


def test_a_restart_waits_for_approval_unless_the_policy_says_otherwise(tmp_path: Path) -> None:
    restart: dict[str, Any] = {"name": "restart_container"}
    asked = make_policy(tmp_path, {}, extra_strategies=[restart])
    restart["requires_approval"] = False
    unasked = make_policy(tmp_path, {}, extra_strategies=[restart])

    assert asked.strategy("redis", "restart_container").requires_approval
    assert not unasked.strategy("redis", "restart_container").requires_approval
    assert not asked.strategy("redis", "reconnect").requires_approval

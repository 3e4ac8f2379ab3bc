"""The compose stack is what it says: hardened, limited, and closed but for this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from recovery.config import Environment, load_policy, warnings
from recovery.encryption import decrypt, encrypt
from recovery.events import TargetRef
from recovery.http.settings import settle
from recovery.strategy import COMPONENTS
from tests.fleet import ROOT
from tests.monitoring import tool

COMPOSE = ROOT / "compose"
SOCKET = "/var/run/docker.sock"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """As compose itself understands it, in a copy with its secrets made."""
    folder = tmp_path_factory.mktemp("stack") / "compose"
    shutil.copytree(COMPOSE, folder, ignore=shutil.ignore_patterns("wheels", "secrets", ".env"))
    subprocess.run([folder / "secrets.sh"], check=True, capture_output=True)
    said = subprocess.run(
        [tool("docker-compose"), "--profile", "sample", "config"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, Any] = yaml.safe_load(said.stdout)
    return found


@pytest.fixture(scope="module")
def services(stack: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return dict(stack["services"])


def of_ours(services: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: one for name, one in services.items() if not one.get("profiles")}


def test_every_service_of_the_stack_is_there(services: dict[str, dict[str, Any]]) -> None:
    workers = {f"{name}-worker" for name in ("redis", "chromadb", "openwebui", "system")}
    others = {"control", "dispatch", "upkeep", "http", "flower", "docker-proxy"}
    watching = {"prometheus", "alertmanager", "grafana"}

    assert set(of_ours(services)) == workers | others | watching
    assert set(services) - set(of_ours(services)) == {"redis", "chroma", "open-webui"}


def test_ours_are_hardened_and_limited(services: dict[str, dict[str, Any]]) -> None:
    for name, one in of_ours(services).items():
        assert one["read_only"] is True, name
        assert one["cap_drop"] == ["ALL"], name
        assert one["security_opt"] == ["no-new-privileges:true"], name
        assert one["mem_limit"], name
        assert one["cpus"], name
        assert one["pids_limit"], name
        assert one["restart"] == "unless-stopped", name
        assert "healthcheck" in one, name


def test_one_service_alone_sees_the_docker_socket(services: dict[str, dict[str, Any]]) -> None:
    with_socket = [n for n, one in services.items() if SOCKET in str(one.get("volumes"))]
    beside_it = {n for n, one in services.items() if "docker" in one.get("networks", {})}

    assert with_socket == ["docker-proxy"]
    assert beside_it == {"docker-proxy", "redis-worker", "chromadb-worker"}
    assert "-allowfrom=redis-worker,chromadb-worker" in services["docker-proxy"]["command"]


def test_no_port_is_open_beyond_this_machine(services: dict[str, dict[str, Any]]) -> None:
    ports = [str(port) for one in services.values() for port in one.get("ports", ())]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_what_needs_no_way_out_has_none(stack: dict[str, Any]) -> None:
    internal = {name for name, one in stack["networks"].items() if (one or {}).get("internal")}

    assert internal == {"control", "docker", "watch"}


def test_no_secret_stands_in_the_environment_or_in_an_argument(
    services: dict[str, dict[str, Any]],
) -> None:
    for name, one in services.items():
        environment = one.get("environment", {})
        for key in environment:
            secret = any(word in key.upper() for word in ("PASSWORD", "TOKEN", "SECRET"))
            assert not secret or key.endswith("FILE") or key == "SECRETS", (name, key)


def test_the_policy_of_the_stack_is_whole() -> None:
    policy = load_policy(COMPOSE / "recovery_config.yml", {})

    assert set(policy.components) == set(COMPONENTS)
    assert warnings(policy) == []


def test_what_the_policy_names_is_handed_over(services: dict[str, dict[str, Any]]) -> None:
    text = (COMPOSE / "recovery_config.yml").read_text()
    variables = set(re.findall(r"\$\{(\w+)", text))
    assert variables

    for name, one in of_ours(services).items():
        if one["image"].startswith("llm-stack-recovery"):
            given = one["environment"].keys()
            assert variables | {"RECOVERY_SECRET_KEY_FILE"} <= given, name

    policy = load_policy(COMPOSE / "recovery_config.yml", {})
    direct = policy.target(TargetRef("openwebui", "default")).direct  # type: ignore[attr-defined]
    assert direct.api_key_env in services["openwebui-worker"]["environment"]


def test_the_directory_of_the_sample_can_be_replaced(services: dict[str, dict[str, Any]]) -> None:
    policy = load_policy(COMPOSE / "recovery_config.yml", {})
    path = policy.target(TargetRef("chromadb", "default")).path  # type: ignore[attr-defined]
    server, worker = services["chroma"], services["chromadb-worker"]

    assert path == Path(server["command"][-1])
    for one in (server, worker):
        (mounted,) = (str(v) for v in one["volumes"] if "sample-chroma" in str(v))
        assert f":{path.parent}" in mounted or f"'{path.parent}'" in mounted


def test_secrets_that_the_policy_names_are_mounted(services: dict[str, dict[str, Any]]) -> None:
    text = (COMPOSE / "recovery_config.yml").read_text()
    mounted = {
        name: {secret["source"] for secret in one.get("secrets", ())}
        for name, one in services.items()
    }

    assert set(re.findall(r"/run/secrets/(\w+)", text)) == {
        "http_token", "http_read_token", "openwebui_password",
    }  # fmt: skip
    assert "openwebui_password" in mounted["openwebui-worker"] & mounted["open-webui"]
    assert {"http_token", "http_read_token"} <= mounted["http"]
    assert all("secret_key" in mounted[name] for name in mounted if name.endswith("-worker"))


def test_each_queue_has_its_worker(services: dict[str, dict[str, Any]]) -> None:
    policy = load_policy(COMPOSE / "recovery_config.yml", {"RECOVERY_HOST": "compose"})
    consumed = set()
    for one in services.values():
        command = one.get("command") or []
        if "--queues" in command:
            consumed |= set(command[command.index("--queues") + 1].split(","))

    wanted = {"dispatch", "celery", "notify", "maintenance", "maintenance.compose"}
    wanted |= {policy.queue(ref) for ref in policy.target_refs()}
    wanted |= {f"{name}.compose" for name in ("redis", "chromadb", "openwebui", "system")}
    assert wanted <= consumed
    assert sum("--beat" in (one.get("command") or []) for one in services.values()) == 1


def test_the_policy_of_the_stack_serves_with_tokens_alone(tmp_path: Path) -> None:
    text = (COMPOSE / "recovery_config.yml").read_text()
    for name, token in (("http_token", "a" * 32), ("http_read_token", "b" * 32)):
        (tmp_path / name).write_text(token)
    policy_file = tmp_path / "policy.yml"
    policy_file.write_text(text.replace("/run/secrets", str(tmp_path)))
    policy = load_policy(policy_file, {})

    settings = settle(policy, Environment.read({}), environ={})

    assert settings.is_exposed
    assert settings.made_token is None


def test_secrets_and_settings_are_made_once(tmp_path: Path) -> None:
    script = tmp_path / "secrets.sh"
    for name in ("secrets.sh", ".env.example"):
        shutil.copy(COMPOSE / name, tmp_path / name)
    subprocess.run([script], check=True, capture_output=True)
    first = {p.name: p.read_text() for p in (tmp_path / "secrets").iterdir()}
    (tmp_path / ".env").write_text("COMPOSE_PROJECT_NAME=mine\n")

    subprocess.run([script], check=True, capture_output=True)

    assert {p.name: p.read_text() for p in (tmp_path / "secrets").iterdir()} == first
    assert len(set(first.values())) == 7
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / ".env").read_text() == "COMPOSE_PROJECT_NAME=mine\n"
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600


def test_the_key_that_is_made_encrypts(tmp_path: Path) -> None:
    for name in ("secrets.sh", ".env.example"):
        shutil.copy(COMPOSE / name, tmp_path / name)
    subprocess.run([tmp_path / "secrets.sh"], check=True, capture_output=True)
    environ = {"RECOVERY_SECRET_KEY_FILE": str(tmp_path / "secrets" / "secret_key")}

    assert decrypt(encrypt("a token", environ), environ) == "a token"

"""Containers for the tests: where the engine and the image come from, and what happens without.

Both fixtures skip with a reason on a machine that lacks what they need, and fail instead where
``RECOVERY_REQUIRE_DOCKER=1`` promises that it is there. Nothing is ever pulled.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests.fleet import ROOT

if TYPE_CHECKING:
    from docker import DockerClient

REQUIRE = "RECOVERY_REQUIRE_DOCKER"
IMAGE = "RECOVERY_TEST_IMAGE"
DEFAULT_IMAGE = "recovery-base:bookworm"
ENGINE_TIMEOUT = 60
"""Seconds for one call to the engine; creating a container on a loaded machine takes some."""


def this_tree() -> dict[str, dict[str, str]]:
    """What a container has to mount so that this interpreter and this tree run in it too."""
    folders = {str(ROOT), sys.prefix, sys.base_prefix} - {"/usr"}
    return {folder: {"bind": folder, "mode": "ro"} for folder in folders}


def unavailable(reason: str) -> NoReturn:
    """End the asking test: a failure where Docker was promised, a skip elsewhere."""
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{reason} ({REQUIRE}=1)", pytrace=False)
    pytest.skip(reason)


def connect() -> DockerClient | str:
    """A client of the local engine, or why there is none."""
    import docker
    from docker.errors import DockerException

    try:
        return docker.from_env(timeout=ENGINE_TIMEOUT)
    except DockerException as error:
        reason = str(error)
    # The failed client leaves its socket to the collector; that warning must not hit a later test.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    return reason


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerClient]:
    """A client of the Docker engine on this machine."""
    if find_spec("docker") is None:
        unavailable("the docker package is not installed")
    client = connect()
    if isinstance(client, str):
        unavailable(f"no Docker engine answers: {client}")
    try:
        yield client
    finally:
        client.close()


@pytest.fixture(scope="session")
def docker_image(docker_engine: DockerClient) -> str:
    """The name of a local image with redis-server in it: ours, or one named by the environment."""
    from docker.errors import ContainerError, ImageNotFound

    name = os.environ.get(IMAGE) or DEFAULT_IMAGE
    try:
        docker_engine.images.get(name)
    except ImageNotFound:
        unavailable(f"no local image {name}: build it with compose/base-image.sh, or set {IMAGE}")
    try:
        docker_engine.containers.run(
            name, ["redis-server", "--version"], entrypoint="", remove=True, network_mode="none"
        )
    except ContainerError as error:
        unavailable(f"the image {name} has no working redis-server: {error}")
    return name

"""``restart_container`` on real containers: what is the same afterwards, and what if it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recovery.components.redis.probe import probe
from recovery.components.redis.restart_container import (
    RestartContainer,
    restart_container,
)
from recovery.components.redis.target import RedisTarget
from tests.containers import RedisContainer
from tests.journals import MemoryJournal

pytestmark = pytest.mark.docker

FAST = RestartContainer(stop_grace=2.0)


def restart(target: RedisTarget, journal: MemoryJournal) -> MemoryJournal:
    assert restart_container.remedy is not None
    restart_container.remedy(target, FAST, journal)
    return journal


def configuration(shown: dict[str, Any]) -> dict[str, Any]:
    """What somebody chose of a container, without what the engine made of it."""
    host = dict(shown["HostConfig"])
    # The copy names the volumes that the old one had without a name.
    host["Binds"] = sorted(bind for bind in host["Binds"] if ":/scratch" not in bind)
    host["Mounts"] = [{**mount, "Source": None} for mount in host["Mounts"]]
    networks = {
        name: {
            "IPAMConfig": endpoint["IPAMConfig"] or None,
            "Aliases": sorted(set(endpoint["Aliases"]) - {shown["Id"][:12]}),
            "DriverOpts": endpoint["DriverOpts"],
            "Links": endpoint["Links"],
        }
        for name, endpoint in shown["NetworkSettings"]["Networks"].items()
    }
    mounts = {
        mount["Destination"]: (mount["Type"], mount.get("Name"), mount["Source"], mount["RW"])
        for mount in shown["Mounts"]
    }
    return {
        "Config": shown["Config"],
        "HostConfig": host,
        "Image": shown["Image"],
        "Name": shown["Name"],
        "Networks": networks,
        "Mounts": mounts,
        "Ports": shown["NetworkSettings"]["Ports"],
    }


def test_the_new_container_is_the_old_one_in_every_field_and_has_its_data(
    redis_container: RedisContainer, tmp_path: Path
) -> None:
    before = redis_container.inspect()
    redis_container.api.pause(redis_container.name)
    assert probe(redis_container.target, 1.0).failure_type == "unresponsive"

    restart(redis_container.target, MemoryJournal(tmp_path))

    after = redis_container.inspect()
    assert after["Id"] != before["Id"]
    assert configuration(after) == configuration(before)
    assert redis_container.is_filled()
    assert probe(redis_container.target, 1.0).healthy

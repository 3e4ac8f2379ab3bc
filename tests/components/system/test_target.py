"""What the policy around a host's target says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from recovery import producer
from recovery.components.system.target import Band, HostTarget, NamedProcess
from recovery.config import Policy, load_policy
from recovery.events import TargetRef

HERE = {"RECOVERY_HOST": "this-one"}


def policy(folder: Path, text: str) -> Policy:
    path = folder / "policy.yml"
    path.write_text(f"recovery:\n  system:\n{text}")
    return load_policy(path, HERE)


def host(found: Policy, name: str) -> HostTarget:
    target = found.target(TargetRef("system", name))
    assert isinstance(target, HostTarget)
    return target


def test_a_host_is_the_one_of_its_targets_name_unless_it_says_otherwise(tmp_path: Path) -> None:
    found = policy(tmp_path, "    targets: {web-1: {}, web-1-disk: {host: web-1}, default: {}}\n")

    queues = [
        producer.queue_of(found, TargetRef("system", name))
        for name in ("web-1", "web-1-disk", "default")
    ]
    assert queues == ["system.web-1", "system.web-1", "system.this-one"]


def test_without_any_target_the_default_is_this_host(tmp_path: Path) -> None:
    found = policy(tmp_path, "    priority: high\n")

    assert producer.queue_of(found, TargetRef("system")) == "system.this-one"


def test_the_playbooks_thresholds_hold_for_targets_without_their_own(tmp_path: Path) -> None:
    found = policy(
        tmp_path,
        "    strategies:\n"
        "      - {name: disk_cleanup, thresholds: {disk_usage_percent: 70}}\n"
        "      - {name: memory_gc, thresholds: {memory_usage_percent: 60}}\n"
        "    targets:\n"
        "      web-1: {}\n"
        "      web-2: {thresholds: {disk_usage_percent: {unhealthy: 50, healthy: 20}}}\n",
    )

    one, two = host(found, "web-1").thresholds, host(found, "web-2").thresholds
    assert one.disk == Band(unhealthy=70, healthy=65)
    assert one.memory == two.memory == Band(unhealthy=60, healthy=55)
    assert two.disk == Band(unhealthy=50, healthy=20)


def test_without_any_word_it_is_the_playbooks_85_80_and_90_85() -> None:
    limits = HostTarget().thresholds

    assert limits.disk == Band(unhealthy=85, healthy=80)
    assert limits.memory == Band(unhealthy=90, healthy=85)


def test_a_band_whose_ends_are_swapped_is_refused() -> None:
    with pytest.raises(ValidationError, match="healthy must not be above"):
        Band(unhealthy=80, healthy=85)


def test_a_process_is_found_in_one_way_only() -> None:
    with pytest.raises(ValidationError, match="give one of"):
        NamedProcess(name="nginx", pidfile=Path("/run/nginx.pid"))


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match="regular expression"):
        NamedProcess(cmdline="celery (")


def test_a_filesystem_is_an_absolute_path() -> None:
    with pytest.raises(ValidationError, match="absolute"):
        HostTarget(filesystems=("data",))

"""Whose host is meant, where there are several."""

from __future__ import annotations

import pytest

from recovery import registry
from recovery.config import load_policy
from recovery.dispatch import Dispatched, dispatch
from recovery.events import Refusal, TargetRef
from recovery.registry import Worker
from tests.components.system.conftest import HostStack

CLEANUP = {"name": "disk_cleanup", "conditions": ["disk_full"], "cleanup_paths": ["/tmp/x"]}


def lives(host: HostStack, name: str) -> None:
    worker = Worker(
        node=f"recovery@{name}",
        host=name,
        pid=7,
        version="1",
        queues=("dispatch", "system", f"system.{name}"),
        concurrency=1,
        active=0,
    )
    registry.register(host.control, worker)


def asked(host: HostStack, target: str | None = None) -> Dispatched:
    policy = load_policy(host.folder / "recovery_config.yml", {"RECOVERY_HOST": "web-1"})
    message = {"component": "system", "failure_type": "disk_full", "target": target}
    return dispatch(host.control, policy, f"id-{target}", message)


def test_this_host_is_meant_by_default_as_long_as_there_is_one(host: HostStack) -> None:
    host.write_policy_of({}, CLEANUP)
    lives(host, "web-1")

    assert asked(host).decision.admitted


def test_an_event_for_this_host_is_refused_where_several_live(host: HostStack) -> None:
    host.write_policy_of({}, CLEANUP)
    lives(host, "web-1")
    lives(host, "web-2")

    refused = asked(host).decision

    assert refused.reason is Refusal.INVALID
    assert "system/default could be any of web-1, web-2" in refused.detail


@pytest.mark.parametrize("target", [{"default": {"host": "web-1"}}, {"web-1": {}, "web-2": {}}])
def test_a_target_that_names_its_host_is_never_in_doubt(
    host: HostStack, target: dict[str, dict[str, str]]
) -> None:
    host.write_policy_of(target, CLEANUP)
    lives(host, "web-1")
    lives(host, "web-2")
    name = next(iter(target))

    decided = asked(host, name)

    assert decided.decision.admitted
    assert [each.target for each in decided.assignments] == [TargetRef("system", name)]

"""The JSON API: what it shows, what it lets people do, and its one shape of errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from recovery import audit
from recovery.events import ProbeReport, State, TargetRef
from recovery.observations import record
from recovery.records import load
from tests.fleet import Fleet
from tests.http.conftest import Site
from tests.stack import Stack
from tests.waiting import until

APPROVED_FIRST = {"component": "redis", "strategy": "reconnect", "require_approval": True}


def asked(site: Site, stack: Stack, **more: Any) -> str:
    accepted = site.post("/api/v1/recoveries", {**APPROVED_FIRST, **more})
    assert accepted.status_code == 202, accepted.text
    identity = accepted.json()["id"]
    until(lambda: site.get("/api/v1/approvals").json()["approvals"], what="it waits")
    return str(identity)


def test_a_recovery_is_triggered_approved_and_read_whole(
    stack: Stack, fleet: Fleet, site: Site
) -> None:
    fleet.start()
    stack.exhaust_clients()
    identity = asked(site, stack, by="eva", reason="it is full")
    (waiting,) = site.get("/api/v1/approvals").json()["approvals"]
    assert (waiting["id"], waiting["asked_by"]) == (identity, "eva")

    url = f"/api/v1/approvals/{identity}/approve"
    nameless = site.post(url, {"reason": "seen"})
    assert (nameless.status_code, nameless.json()["facts"]) == (422, {"field": "by"})
    assert site.post(url, {"by": "max", "reason": "seen"}).json()["decision"] == "approved"
    again = site.post(url, {"by": "ina"})
    assert (again.status_code, again.json()["error"]) == (409, "not_pending")

    stack.concluded(identity)
    found = site.get(f"/api/v1/recoveries/{identity}").json()
    assert found["outcome"]["result"] == "recovered"
    assert found["outcome"]["after"]["healthy"]
    assert found["decided_by"] == "max"
    assert found["event"]["source"] == "api"
    assert found["steps"]
    assert found["evidence"]["probe"]["failure_type"] == "clients_exhausted"
    (entry,) = site.get("/api/v1/recoveries").json()["recoveries"]
    assert entry["decided"] == "approved by max: seen"
    assert site.get("/api/v1/workers").json()["workers"][0]["alive"]


def test_a_denied_recovery_does_not_run(stack: Stack, fleet: Fleet, site: Site) -> None:
    fleet.start()
    identity = asked(site, stack)

    denied = site.post(f"/api/v1/approvals/{identity}/deny", {"by": "max", "reason": "not now"})

    assert denied.json() == {"id": identity, "decision": "denied", "by": "max"}
    assert stack.concluded(identity).outcome.result == "denied"


def test_a_component_is_disabled_for_a_while_and_enabled(stack: Stack, site: Site) -> None:
    said = {"component": "redis", "by": "eva", "reason": "night", "duration": "30m"}
    assert site.post("/api/v1/disable", said).status_code == 200
    (scope,) = site.get("/api/v1/disabled").json()["disabled"]
    assert (scope["scope"], scope["by"], scope["reason"]) == ("redis", "eva", "night")
    assert 1700 < scope["seconds_left"] <= 1800

    until(lambda: site.get("/api/v1/targets").json()["targets"][0]["disabled_by"] == "eva")
    enabled = site.post("/api/v1/enable", {"component": "redis", "by": "eva"}).json()

    assert enabled == {"scope": "redis", "was_disabled": True}
    assert site.get("/api/v1/disabled").json() == {"disabled": []}


def observe(stack: Stack, *, healthy: bool) -> None:
    failure = None if healthy else "connection_error"
    report = ProbeReport(healthy=healthy, failure_type=failure, figures={"latency_ms": 1})
    record(stack.control, stack.policy, TargetRef("redis"), report, latency_ms=1.5)


def test_readiness_follows_what_the_probes_find(stack: Stack, site: Site) -> None:
    observe(stack, healthy=True)
    well = until(lambda: ready(site, "well"), what="a healthy target")
    assert well == {
        "ready": True,
        "control_plane": True,
        "components": {
            "redis": {"ready": True, "targets": {"default": {"ready": True, "state": "well"}}}
        },
    }

    for _ in range(3):
        observe(stack, healthy=False)

    until(lambda: ready(site, "down"), what="a failing target")
    answer = site.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (503, False)
    target = site.get("/api/v1/targets/redis/default").json()
    assert (target["state"], target["probe"]["failure_type"]) == ("down", "connection_error")
    assert site.get("/api/v1/targets", params={"state": "down"}).json()["targets"] == [target]


def ready(site: Site, state: str) -> dict[str, Any] | None:
    found = site.get("/readyz").json()
    targets = found["components"]["redis"]["targets"]
    return found if targets["default"]["state"] == state else None


def written(stack: Stack, count: int) -> None:
    pipe = stack.control.redis.pipeline()
    for number in range(count):
        entry = {
            "id": f"r{number}",
            "target": "redis/default" if number % 2 else "system/web",
            "strategy": "reconnect",
            "result": "failed" if number % 10 == 0 else "recovered",
            "n": number,
        }
        pipe.xadd(stack.control.key("audit"), {"entry": json.dumps(entry)})
    pipe.execute()


def test_recoveries_are_paged_newest_first_and_none_is_missing(stack: Stack, site: Site) -> None:
    written(stack, 120)

    seen: list[str] = []
    cursor = None
    while True:
        given = {"limit": 50, **({"cursor": cursor} if cursor else {})}
        page = site.get("/api/v1/recoveries", params=given).json()
        seen += [entry["id"] for entry in page["recoveries"]]
        cursor = page["next"]
        if cursor is None:
            break

    assert seen == [f"r{number}" for number in reversed(range(120))]


def test_recoveries_are_filtered(stack: Stack, site: Site) -> None:
    written(stack, 100)

    def found(**wanted: str) -> list[Any]:
        return site.get("/api/v1/recoveries", params=wanted).json()["recoveries"]

    assert {entry["target"] for entry in found(component="system")} == {"system/web"}
    assert {entry["target"] for entry in found(target="redis/default")} == {"redis/default"}
    assert len(found(result="failed")) == 10
    assert found(since="2200-01-01T00:00:00Z") == []


def test_pages_go_on_into_sealed_days(stack: Stack, serve: Callable[..., Site]) -> None:
    day = 86_400_000
    now = stack.control.now_ms()
    for number in range(6):
        at = now - (6 - number) * day
        entry = {"id": f"r{number}", "target": "redis/default", "result": "recovered", "n": number}
        stack.control.redis.xadd(
            stack.control.key("audit"), {"entry": json.dumps(entry)}, id=f"{at}-0"
        )
    site = serve()
    folder = audit.folder_of(site.context.policy, site.context.environment)
    audit.seal(stack.control, folder, site.context.policy.audit, "test-host")
    assert list(folder.glob("audit-*"))

    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        given = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = site.get("/api/v1/recoveries", params=given).json()
        seen += [entry["id"] for entry in page["recoveries"]]
        cursor = page["next"]

    assert seen == [f"r{number}" for number in reversed(range(6))]


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/api/v1/recoveries/none", 404, "unknown_recovery"),
        ("/api/v1/targets/redis/none", 422, "invalid_event"),
        ("/api/v1/targets/redis/%2e%2e", 422, "invalid_event"),
        ("/api/v1/recoveries?limit=0", 422, "invalid_request"),
        ("/api/v1/recoveries?cursor=x", 422, "invalid_event"),
        ("/api/v1/recoveries?cursor=s:x", 422, "invalid_event"),
        ("/api/v1/recoveries?cursor=f:2020-01-01/x", 422, "invalid_event"),
        ("/api/v1/nothing", 404, "not_found"),
    ],
)
def test_every_error_has_one_shape(site: Site, path: str, status: int, error: str) -> None:
    answer = site.get(path)

    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert set(answer.json()) == {"error", "message", "facts"}


def test_a_trigger_that_the_policy_does_not_know_is_answered_with_what_there_is(site: Site) -> None:
    answer = site.post("/api/v1/recoveries", {"component": "redis", "strategy": "reconect"})

    assert answer.status_code == 422
    assert answer.json()["facts"]["allowed"] == ["reconnect"]


def test_a_stray_secret_is_not_repeated(site: Site) -> None:
    said = {"component": "redis", "failure_type": "x", "password": "hunter2", "by": ["hunter2"]}

    answer = site.post("/api/v1/recoveries", said)

    assert answer.status_code == 422
    assert "hunter2" not in answer.text


def test_a_control_plane_that_is_away_is_a_503_that_says_so(site: Site, control_redis: Any) -> None:
    control_redis.kill()

    for path in ("/api/v1/approvals", "/api/v1/recoveries", "/api/v1/undo"):
        answer = site.get(path)
        assert (answer.status_code, answer.json()["error"]) == (503, "control_plane_unavailable")
        assert "retry-after" in answer.headers
    until(lambda: not site.get("/readyz").json()["control_plane"], what="readiness says so")
    assert site.post("/api/v1/recoveries", APPROVED_FIRST).status_code == 503
    assert site.get("/healthz").status_code == 200
    control_redis.start()
    until(lambda: site.get("/api/v1/approvals").status_code == 200, what="it is back")


def test_openapi_describes_every_route_and_its_errors(site: Site) -> None:
    found = site.get("/api/v1/openapi.json").json()

    assert "/api/v1/recoveries" in found["paths"]
    assert "/metrics" in found["paths"]
    for path, methods in found["paths"].items():
        for method, described in methods.items():
            assert described.get("description") or described.get("summary"), (path, method)
            if path.startswith("/api/v1") and method == "get":
                assert "503" in described["responses"]


def test_a_recovery_that_waits_is_read_before_anybody_took_it(
    stack: Stack, fleet: Fleet, site: Site
) -> None:
    fleet.start()
    identity = asked(site, stack)

    assert site.get(f"/api/v1/recoveries/{identity}").json()["state"] == State.AWAITING_APPROVAL
    assert load(stack.control, identity).event.source == "api"

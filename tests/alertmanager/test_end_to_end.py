"""A real Prometheus sees a broken Redis, a real Alertmanager tells us, and the alert is over."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from recovery import audit
from recovery.config import Environment
from recovery.events import Result, Source
from tests.fleet import ROOT, Fleet
from tests.monitoring import Monitor, alertmanager_at, prometheus_at
from tests.serving import Front
from tests.stack import Stack
from tests.waiting import until

RULES = ROOT / "compose" / "prometheus" / "rules" / "targets.yml"
ROUTES = ROOT / "compose" / "alertmanager" / "alertmanager.yml"


@pytest.fixture
def exporter(stack: Stack) -> Iterator[str]:
    """What redis_exporter says of a Redis, asked for it anew each time."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"redis_up {int(stack.target.answers())}\n".encode()
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def told_by_alertmanager(front: Front, tmp_path: Path) -> Iterator[Monitor]:
    """With the routes that are shipped; only the address and the token are this test's."""
    config = yaml.safe_load(ROUTES.read_text())
    (webhook,) = config["receivers"][1]["webhook_configs"]
    webhook["url"] = f"{front.url}/alerts"
    webhook["http_config"] = {"authorization": {"credentials": front.token}}
    server = alertmanager_at(tmp_path / "alertmanager", config)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def prometheus(exporter: str, told_by_alertmanager: Monitor, tmp_path: Path) -> Iterator[Monitor]:
    """With the rules that are shipped, looking once a second."""
    address = told_by_alertmanager.url.removeprefix("http://")
    labels = {"component": "redis", "target": "default"}
    scrape = {
        "job_name": "targets",
        "static_configs": [{"targets": [exporter], "labels": labels}],
    }
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [address]}]}]},
        "scrape_configs": [scrape],
    }
    server = prometheus_at(tmp_path / "prometheus", config)
    server.start()
    yield server
    server.stop()


def test_a_rule_fires_the_target_is_repaired_and_the_alert_is_over(
    stack: Stack, fleet: Fleet, prometheus: Monitor, told_by_alertmanager: Monitor
) -> None:
    fleet.start()
    folder = audit.folder_of(stack.policy, Environment.read())

    def entries() -> list[audit.AuditEntry]:
        return list(audit.latest(stack.control, 10, folder))

    until(
        lambda: prometheus.get("/api/v1/query?query=redis_up")["data"]["result"],
        seconds=30,
        what="the exporter is scraped",
    )
    stack.exhaust_clients()

    repaired = until(
        lambda: [e for e in entries() if e.fields["result"] == Result.RECOVERED],
        seconds=60,
        what="the target is repaired",
    )

    (entry,) = repaired
    assert entry.fields["source"] == Source.ALERTMANAGER
    assert entry.fields["failure"] == "connection_error"
    assert entry.fields["reason"] == "Alertmanager: RedisDown"
    assert stack.target.answers()
    until(
        lambda: not told_by_alertmanager.alerts(alertname="RedisDown"),
        seconds=60,
        what="the alert is over",
    )
    held = stack.control.key("alerted", "redis/default|connection_error")
    fingerprint = f"f:{entry.fields['correlation']}"
    until(
        lambda: str(stack.control.redis.hget(held, fingerprint)).endswith("|0"),
        seconds=60,
        what="we were told that it is over",
    )

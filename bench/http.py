"""The status page and the API with 500 targets and 10,000 audit entries.

The page is loaded by a real Chromium: time to its load event, time until it is live, and time from
a probe's report to the change on the screen, beside an empty page of the same framework; and what
all of it weighs on the wire. The API is asked in turns with an endpoint that does nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import redis
import yaml
from playwright.sync_api import Browser, Page, sync_playwright

from bench import report, servers
from recovery.config import Policy, load_policy
from recovery.controlplane import ControlPlane
from recovery.events import ProbeReport, TargetRef
from recovery.observations import record

TARGETS = 500
ENTRIES = 10_000
HISTORY = 30
API_LIMIT_MS = 50.0
PAGE_LIMIT_BYTES = 200_000
PATHS = (
    "/api/v1/status",
    "/api/v1/targets",
    "/api/v1/targets?state=down",
    "/api/v1/targets/redis/t7",
    "/api/v1/recoveries?limit=50",
    "/api/v1/recoveries?component=redis&result=failed&limit=50",
    "/api/v1/approvals",
    "/api/v1/workers",
    "/readyz",
)
CHROMIUM = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=200, help="requests of each path")
    parser.add_argument("--loads", type=int, default=10, help="page loads")
    given = parser.parse_args()
    with ExitStack() as stack:
        where = stack.enter_context(servers.folder())
        url = stack.enter_context(servers.redis_server(where))
        policy, control = stage(where, url)
        ours = stack.enter_context(serving(where, url))
        bare = stack.enter_context(baseline())
        asked = api(ours, bare, given.n)
        browser = stack.enter_context(chromium())
        pages = page_loads(browser, ours, bare, given.loads)
        weight = wire_bytes(browser, ours)
        seen = first_event(browser, ours, control, policy)
        control.redis.close()
    say(asked, pages, weight, seen, given)


def stage(where: Path, url: str) -> tuple[Policy, ControlPlane]:
    """A policy of so many targets, their probes' history and a trail."""
    targets = {f"t{n}": {"url": f"redis://127.0.0.1:{10_000 + n}/0"} for n in range(TARGETS)}
    strategy = {"name": "reconnect", "conditions": ["connection_error"]}
    document = {"recovery": {"redis": {"targets": targets, "strategies": [strategy]}}}
    (where / "policy.yml").write_text(yaml.safe_dump(document))
    policy = load_policy(where / "policy.yml")
    control = ControlPlane(redis.Redis.from_url(url, decode_responses=True))
    for number, ref in enumerate(policy.target_refs()):
        observe(control, policy, ref, healthy=number % 50 != 0, times=HISTORY)
    pipe = control.redis.pipeline(transaction=False)
    for number in range(ENTRIES):
        entry = {
            "id": f"00000000-0000-4000-8000-{number:012d}",
            "target": f"redis/t{number % TARGETS}",
            "strategy": "reconnect",
            "failure": "connection_error",
            "result": "failed" if number % 10 == 0 else "recovered",
            "seconds": 0.412,
            "before": {"found": "connection_error"},
            "after": {"found": "healthy", "connected_clients": 12},
            "n": number,
        }
        pipe.xadd(control.key("audit"), {"entry": json.dumps(entry)})
    pipe.execute()
    return policy, control


def observe(
    control: ControlPlane, policy: Policy, ref: TargetRef, *, healthy: bool, times: int = 1
) -> None:
    figures = {"connected_clients": 17, "used_memory_mb": 245.5, "ops_per_second": 1200}
    failure = None if healthy else "connection_error"
    found = ProbeReport(healthy=healthy, failure_type=failure, figures=figures)
    for number in range(times):
        record(control, policy, ref, found, latency_ms=1 + number % 7)


@contextmanager
def process(command: list[str], environ: dict[str, str], url: str) -> Iterator[str]:
    running = subprocess.Popen(command, cwd=servers.ROOT, env=environ, stderr=subprocess.DEVNULL)
    try:
        servers.wait_for(lambda: answers(url), 60)
        yield url.rpartition("/")[0]
    finally:
        running.terminate()
        running.wait(15)


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def serving(where: Path, url: str) -> Iterator[str]:
    port = servers.free_port()
    environ = {
        **os.environ,
        "RECOVERY_REDIS_URL": url,
        "RECOVERY_CONFIG": str(where / "policy.yml"),
        "RECOVERY_STATE_DIR": str(where / "state"),
    }
    options = ["--port", str(port), "--loglevel", "warning"]
    command = [sys.executable, "-m", "recovery.http", *options]
    # More requests a second than any person's page sends.
    policy = (where / "policy.yml").read_text()
    (where / "policy.yml").write_text(policy + "http: {requests_per_second: 100000}\n")
    with process(command, environ, f"http://127.0.0.1:{port}/healthz") as base:
        yield base


@contextmanager
def baseline() -> Iterator[str]:
    port = servers.free_port()
    command = [sys.executable, "-m", "bench.http_app", str(port)]
    with process(command, dict(os.environ), f"http://127.0.0.1:{port}/bare") as base:
        yield base


def api(ours: str, bare: str, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each path, in turns; ``bare`` is the baseline's."""
    asked = {"bare": f"{bare}/bare", **{path: ours + path for path in PATHS}}
    taken: dict[str, list[float]] = {name: [] for name in asked}
    with httpx.Client(headers={"accept-encoding": "identity"}) as client:
        for number in range(rounds + 5):
            for name, url in asked.items():
                spent = milliseconds(lambda url=url: client.get(url))
                if number >= 5:
                    taken[name].append(spent)
    return {name: report.summary(values, 1) for name, values in taken.items()}


@contextmanager
def chromium() -> Iterator[Browser]:
    found = shutil.which("chromium")
    if found is None:
        sys.exit("bench.http needs chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=[*CHROMIUM])
        yield browser
        browser.close()


def fresh(browser: Browser) -> Page:
    """With nothing in its cache."""
    return browser.new_context(viewport={"width": 1280, "height": 900}).new_page()


def page_loads(browser: Browser, ours: str, bare: str, loads: int) -> dict[str, dict[str, float]]:
    """Milliseconds until the load event, and until the page is live, in turns."""
    taken: dict[str, list[float]] = {"bare": [], "load": [], "live": []}
    for _ in range(loads):
        page = fresh(browser)
        taken["bare"].append(milliseconds(lambda page=page: page.goto(bare)))
        page.context.close()
        page = fresh(browser)
        began = time.perf_counter()
        page.goto(ours)
        taken["load"].append((time.perf_counter() - began) * 1000)
        page.wait_for_selector("#live.on")
        taken["live"].append((time.perf_counter() - began) * 1000)
        page.context.close()
    return {name: report.summary(values, 0) for name, values in taken.items()}


def wire_bytes(browser: Browser, ours: str) -> dict[str, int]:
    """What a first visit transfers until the page is live, and what it is unpacked."""
    page = fresh(browser)
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    sums = {"wire": 0, "unpacked": 0}

    def add(name: str, key: str) -> Callable[[dict[str, Any]], None]:
        def note(event: dict[str, Any]) -> None:
            sums[name] += int(event[key])

        return note

    session.on("Network.loadingFinished", add("wire", "encodedDataLength"))
    session.on("Network.dataReceived", add("unpacked", "dataLength"))
    page.goto(ours, wait_until="networkidle")
    page.context.close()
    return sums


def first_event(
    browser: Browser, ours: str, control: ControlPlane, policy: Policy
) -> dict[str, float]:
    """Milliseconds from the probe that makes a failure sure to the card on the screen."""
    page = fresh(browser)
    page.goto(ours)
    page.wait_for_selector("#live.on")
    taken = []
    for number in range(5):
        ref = TargetRef("redis", f"t{100 + number}")
        observe(control, policy, ref, healthy=False, times=policy.detection.failures - 1)
        time.sleep(1.5)

        def shown(ref: TargetRef = ref) -> None:
            observe(control, policy, ref, healthy=False)
            page.wait_for_selector(f'#attention [id="c:{ref}"]')

        taken.append(milliseconds(shown))
    page.context.close()
    return report.summary(taken, 0)


def milliseconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


def say(
    asked: dict[str, dict[str, float]],
    pages: dict[str, dict[str, float]],
    weight: dict[str, int],
    seen: dict[str, float],
    given: argparse.Namespace,
) -> None:
    print(f"{TARGETS} targets, {ENTRIES} audit entries")
    for name, figures in asked.items():
        print(f"{name:60} {figures} ms")
    print(f"{'page: load event, empty page of the same framework':60} {pages['bare']} ms")
    print(f"{'page: load event':60} {pages['load']} ms")
    print(f"{'page: live':60} {pages['live']} ms")
    print(f"{'page: from a report to the change on the screen':60} {seen} ms")
    print(f"{'page: bytes':60} {weight}")
    worst = max(figures["p95"] for name, figures in asked.items() if name != "bare")
    report.finish(
        "http",
        n=given.n,
        unit="ms",
        ours={"api_p95": worst, **weight, "live_p50": pages["live"]["p50"], "event": seen["p50"]},
        baseline=asked["bare"],
        ratio=round(worst / asked["bare"]["p95"], 1),
        limit={"api_p95": API_LIMIT_MS, "wire": PAGE_LIMIT_BYTES},
        ok=worst < API_LIMIT_MS and weight["wire"] < PAGE_LIMIT_BYTES,
    )


if __name__ == "__main__":
    main()

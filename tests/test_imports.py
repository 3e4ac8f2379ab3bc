"""What a process loads, because every worker pays for it in memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.fleet import ROOT

WORKER = "from workers.app import app; app.loader.import_default_modules()"
SUPERVISOR = "import recovery.supervisor, recovery.liveness, recovery.instance, recovery.systemd"


@pytest.mark.parametrize(
    ("program", "unwanted"),
    [
        (WORKER, {"chromadb", "docker", "fastapi", "httpx", "jinja2", "prometheus_client"}),
        (SUPERVISOR, {"celery", "kombu", "redis"}),
        ("import recovery.cli.serving", {"fastapi", "jinja2", "prometheus_client", "uvicorn"}),
    ],
    ids=["redis worker", "supervisor", "command line"],
)
def test_a_process_does_not_load_what_it_does_not_need(program: str, unwanted: set[str]) -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", f"import sys; {program}; print(*sys.modules)"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.split()

    assert unwanted.isdisjoint(loaded)


THREADS = """
import threading, time
from recovery import producer

apps = []

def ask():
    apps.append(producer.celery_app())

threads = [threading.Thread(target=ask) for _ in range(40)]
for thread in threads:
    thread.start()
    time.sleep(0.005)
for thread in threads: thread.join()
print(len(apps))
"""


def test_threads_that_are_the_first_to_send_may_do_so_at_once() -> None:
    said = subprocess.run(
        [sys.executable, "-c", THREADS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert (said.stdout.strip(), said.stderr) == ("40", "")

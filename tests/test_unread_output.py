"""A worker whose output nobody reads any more, as behind ``recovery up | head``."""

from __future__ import annotations

import subprocess
import sys

from tests.fleet import ROOT
from tests.stack import Stack


def test_a_worker_whose_output_has_no_reader_still_stops_when_asked(stack: Stack) -> None:
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "workers.app", "worker"]
    command += ["-n", "unread@test", "-Q", "redis", "-c", "1", "-l", "INFO"]
    command += ["--without-mingle", "--without-gossip"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=stack.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as worker:
        try:
            assert worker.stdout is not None
            assert any(b"ready." in line for line in worker.stdout)
            worker.stdout.close()

            worker.terminate()

            assert worker.wait(30) == 0
        finally:
            worker.kill()

"""Each bench starts: what only people run breaks unseen when something that it imports moves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHES = sorted(
    path.stem for path in (ROOT / "bench").glob("*.py") if "def main(" in path.read_text()
)


@pytest.mark.parametrize("name", BENCHES)
def test_a_bench_can_be_imported(name: str) -> None:
    command = [sys.executable, "-c", f"import bench.{name}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

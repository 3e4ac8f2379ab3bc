"""Rebuilds of an index killed with SIGKILL at random moments: old or new, and never neither.

There is no baseline: by hand the new index is copied over the old one, file by file.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections import Counter
from pathlib import Path

from bench import report, servers
from tests.chroma import ChromaDirectory
from tests.components.chromadb.killing import Rebuilding

KILLS = 100


def kill_rebuilds(template: ChromaDirectory, where: Path, kills: int) -> Counter[str]:
    """Kill until there were enough; each damaged directory serves until one is through."""
    found: Counter[str] = Counter()
    number = 0
    while found["killed"] < kills:
        number += 1
        broken = Rebuilding.of(template, where, f"rebuild-{number}")
        while found["killed"] < kills:
            was_killed = broken.kill_once()
            found["killed"] += was_killed
            found[broken.state_now()] += was_killed
            if not was_killed or broken.state_now() == "new":
                break
        # The same recovery goes on, or another one begins.
        broken.finish("first" if number % 2 else "another")
        found["completed"] += 1
        shutil.rmtree(where / f"rebuild-{number}")
        print(f"  {dict(found)}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS)
    kills = parser.parse_args().kills
    with servers.folder() as where:
        os.environ["RECOVERY_STATE_DIR"] = str(where / "state")
        template = ChromaDirectory.build(where / "template")
        found = kill_rebuilds(template, where, kills)
    # Whatever is neither, or does not complete, ends the bench with an error of its own.
    report.finish(
        "chromadb_rebuild_kills",
        n=found["killed"],
        unit="indexes that were neither old nor new",
        ours={"neither": 0, **found},
        baseline=None,
        ratio=0,
        limit=0,
        ok=found["killed"] >= kills,
    )


if __name__ == "__main__":
    main()

"""Repairs of a ChromaDB killed with SIGKILL at random moments: old or new, and never neither.

The baseline is none: a repair that is not one transaction has moments of which it cannot be said.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections import Counter
from collections.abc import Callable
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


PARTS: dict[str, Callable[[ChromaDirectory, Path, int], Counter[str]]] = {"rebuild": kill_rebuilds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    chosen = parser.parse_args()
    began = time.monotonic()
    found = {}
    with servers.folder() as where:
        template = ChromaDirectory.build(where / "template")
        for part in chosen.parts:
            print(part)
            found[part] = PARTS[part](template, where, chosen.kills)
    report.finish(
        "chromadb_kills",
        n=sum(counted["killed"] for counted in found.values()),
        unit="kills",
        ours={part: dict(counted) for part, counted in found.items()},
        baseline={"seconds": round(time.monotonic() - began)},
        ratio=None,
        limit="never neither old nor new",
        ok=all(counted["killed"] >= chosen.kills for counted in found.values()),
    )


if __name__ == "__main__":
    main()

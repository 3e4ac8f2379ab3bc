"""Rollbacks of a directory, killed with SIGKILL at random moments: is it ever neither old nor new.

The baseline is what people do by hand, remove the directory and unpack the archive in its place,
killed as often at moments drawn in the same way.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import tarfile
import time
from pathlib import Path

from bench import report, servers
from recovery.components.chromadb.snapshots import taking
from recovery.components.chromadb.target import ChromaTarget
from tests.chroma import COUNT, ChromaDirectory
from tests.chroma_kills import Kills, back, digest, forward, without_server

KILLS_IN_A_ROW = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=120)
    wanted = parser.parse_args().kills
    with servers.folder() as where:
        os.environ["RECOVERY_STATE_DIR"] = str(where / "state")
        directory = ChromaDirectory.build(where / "chroma")
        target = ChromaTarget(
            path=directory.path,
            collections={"docs": COUNT},
            snapshots={"directory": where / "snapshots"},
        )
        taking.take(target, "chromadb/bench")
        pristine = directory.copy(where / "pristine" / "chroma")
        done = []
        for run, broken in ((forward, target), (back, without_server(target))):
            kills = Kills(broken, directory, where / run.__name__, run=run)
            kills.prepare()
            number = 0
            while kills.kills < wanted // 2:
                kills.round(number, KILLS_IN_A_ROW)
                number += 1
            done.append(kills)
            print(f"{run.__name__}: {kills.kills} kills, {number} completed afterwards")
            for name, count in sorted(kills.seen.items()):
                print(f"  {name:16} {count:4}")
        killed = sum(kills.kills for kills in done)
        torn = unpacked_by_hand(pristine, where / "by-hand", killed)
    print(f"unpacked by hand: {torn} of {killed} were neither")
    report.finish(
        "chromadb_kills",
        n=killed,
        unit="directories that were neither old nor new",
        ours={"neither": 0, "not_completed": 0, "seen": dict(sum_of(done))},
        baseline={"neither": torn},
        ratio=0,
        limit=0,
        ok=killed >= wanted // 2 * 2,
    )


def sum_of(done: list[Kills]) -> dict[str, int]:
    found: dict[str, int] = {}
    for kills in done:
        for name, count in kills.seen.items():
            found[name] = found.get(name, 0) + count
    return found


def unpacked_by_hand(pristine: ChromaDirectory, where: Path, rounds: int) -> int:
    """How often a kill leaves what is neither the old directory nor the new one."""
    where.mkdir()
    archive, place = where / "data.tar", where / "chroma"
    with tarfile.open(archive, "w") as tar:
        tar.add(pristine.path, arcname="chroma")
    began = time.monotonic()
    unpack(archive, place)
    longest = time.monotonic() - began
    whole = digest(place)
    context = multiprocessing.get_context("forkserver")
    torn = 0
    for _ in range(rounds):
        ready = context.Event()
        child = context.Process(target=unpack, args=(archive, place, ready))
        child.start()
        ready.wait()
        child.join(longest * random.random())
        child.kill()
        child.join()
        torn += not place.exists() or digest(place) != whole
    return torn


def unpack(archive: Path, place: Path, ready: object = None) -> None:
    if ready is not None:
        ready.set()  # type: ignore[attr-defined]
    shutil.rmtree(place, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(place.parent, filter="data")


if __name__ == "__main__":
    main()

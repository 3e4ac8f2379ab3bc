"""Every way to break a ChromaDB that we know: is it found, and what repairs it, losing what.

The baseline is what people probe with today, the server's own heartbeat after a restart on the
damaged directory: it finds only what keeps the server from starting, or ends it by itself.

Each damage of a directory is then repaired by the first remedy that can: the index is rebuilt, then
with the embedding function, then the directory goes back to a snapshot. What breaks under a server
is repaired by the ladder of the shipped policy, rung by rung with the retries that stand there,
until the probe says healthy. A vector counts where its record gives the one that it was given.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from threading import Timer
from typing import Any

from bench import report, servers
from recovery.components.chromadb.index_rebuild import IndexRebuild, index_rebuild
from recovery.components.chromadb.probe import light, probe
from recovery.components.chromadb.snapshot_rollback import SnapshotRollback, snapshot_rollback
from recovery.components.chromadb.snapshots import taking
from recovery.components.chromadb.target import ChromaTarget, SnapshotSettings
from recovery.config import StrategyPolicy, load_policy
from recovery.errors import RemedyError
from recovery.finding import find_component
from recovery.selection import ladder
from tests.chroma import (
    COUNT,
    DAMAGES,
    DIMENSION,
    ROOT,
    ChromaDirectory,
    Damage,
    ManagedChroma,
    ServedChroma,
    ask,
    noise,
)
from tests.journals import MemoryJournal

SECONDS = 20.0
SERVED_SECONDS = 5.0
"""What one probe may take in a recovery: a server that hangs costs all of it."""
PASSING_SECONDS = 6.0
"""How long a failure lasts that passes by itself."""
PATIENCE = 5.0
"""How long a server may take to start before its heartbeat counts as gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One damage; times in seconds."""

    damage: str
    expected: str
    found: str | None
    took: float
    glanced: str | None
    glance: float
    heartbeat: bool
    repaired_by: str | None = None
    proven: str = ""
    damaged: int = 0
    repaired: int = 0
    repair: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Repaired, and every vector is back."""
        return self.repaired_by is not None and self.repaired == COUNT

    @property
    def is_detected(self) -> bool:
        return self.found == self.expected

    def line(self) -> str:
        return (
            f"{self.damage:34} {self.found or 'nothing':19} {self.took:6.2f}"
            f"  {self.glanced or '-':19} {self.glance * 1000:6.1f}"
            f"  {'fine' if self.heartbeat else 'gone'}  {self.repaired_by or '-':24}"
            f" {self.damaged:5} → {self.repaired:5} {self.repair:6.2f}  {self.proven}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--damages", default="*", help="only those, by a pattern")
    wanted = parser.parse_args().damages
    with servers.folder() as where:
        template = ChromaDirectory.build(where / "template")
        print(f"{COUNT} records; healthy: {measure_healthy(template)}")
        print(
            f"{'damage':34} {'the probe finds':19} {'s':>6}"
            f"  {'a glance finds':19} {'ms':>6}  heartbeat"
            f"  {'repaired by':24} {'vectors':>13} {'s':>6}  proven by"
        )
        rows = []
        os.environ["RECOVERY_STATE_DIR"] = str(where / "state")
        snapshots = where / "snapshots"
        kept = target(template).model_copy(
            update={"snapshots": SnapshotSettings(directory=snapshots)}
        )
        taking.take(kept, "chromadb/bench")
        for number, broken in enumerate((*DAMAGES, *SERVED)):
            if not fnmatch(broken.name, wanted):
                continue
            directory = template.copy(where / str(number) / "chroma")
            if isinstance(broken, Damage):
                rows.append(measure(broken, directory, snapshots))
            else:
                rows.append(measure_served(broken, directory, snapshots))
            print(rows[-1].line(), flush=True)
            shutil.rmtree(where / str(number))
    detected = sum(row.is_detected for row in rows)
    report.finish(
        "chromadb_damage",
        n=len(rows),
        unit="damages found",
        ours={
            "detected": detected,
            "repaired": sum(row.is_whole for row in rows),
            "vectors_lost": sum(COUNT - row.repaired for row in rows),
            "glanced": sum(row.glanced is not None for row in rows),
            "seconds": report.summary([row.took for row in rows]),
        },
        baseline={
            "all": len(rows),
            "heartbeat": sum(not row.heartbeat for row in rows),
        },
        ratio=round(detected / len(rows), 3),
        limit=1.0,
        ok=detected == len(rows) and all(row.is_whole for row in rows),
    )


@dataclass(frozen=True, slots=True)
class ServedDamage:
    """One way to break a server that runs; lasts as long as its context.

    ``passes``: nothing repairs it but its end, which the first attempt does not see yet.
    """

    name: str
    failure_type: str
    inflict: Callable[[ManagedChroma], AbstractContextManager[object]]
    passes: bool = False


@contextmanager
def stopped(server: ManagedChroma) -> Iterator[None]:
    pid = server.process.inspect().pid or 0
    os.kill(pid, signal.SIGSTOP)
    yield
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


SERVED = (
    ServedDamage("server killed", "connection_error", lambda s: nullcontext(s.kill())),
    ServedDamage("server hung", "connection_timeout", stopped),
    ServedDamage(
        "database locked", "temporary_failure", lambda s: s.directory.locked(), passes=True
    ),
    ServedDamage(
        "index overwritten under a server",
        "index_corrupted",
        lambda s: nullcontext(noise(s.directory.segment / "data_level0.bin")),
    ),
    ServedDamage(
        "database removed under a server",
        "database_missing",
        lambda s: nullcontext(s.directory.database.unlink()),
    ),
)


def target(directory: ChromaDirectory) -> ChromaTarget:
    return ChromaTarget(path=directory.path, collections={"docs": COUNT})


def measure_healthy(directory: ChromaDirectory) -> str:
    began = time.perf_counter()
    found = probe(target(directory), SECONDS)
    took = time.perf_counter() - began
    if not found.healthy:
        raise RuntimeError(f"the undamaged directory is not healthy: {found}")
    return f"{took:.2f} s, {found.summary}"


def measure(damage: Damage, directory: ChromaDirectory, snapshots: Path) -> Row:
    damage.inflict(directory)
    looked = look(damage, target(directory), SECONDS)
    # A server may change what it starts on; the repair is to find what the damage left.
    beside = directory.path.with_name("beside")
    beside.mkdir()
    if directory.path.exists():
        shutil.copytree(directory.path, beside / "chroma")
    with started(ChromaDirectory(beside / "chroma")) as server:
        heartbeat = server.answers()
    return Row(**looked, **repair(directory, snapshots), heartbeat=heartbeat)


def repair(directory: ChromaDirectory, snapshots: Path) -> dict[str, Any]:
    """By the first remedy that can, in the order of the shipped policy."""
    chosen = target(directory).model_copy(
        update={"snapshots": SnapshotSettings(directory=snapshots)}
    )
    damaged = right(directory)
    began = time.perf_counter()
    for number, (name, remedy) in enumerate(REMEDIES.items()):
        state = directory.path.with_name("state")
        journal = MemoryJournal(state, recovery_id=f"bench-{number}", seconds=300)
        try:
            remedy(chosen, journal)
        except RemedyError as error:
            print(f"  {name}: {error}", flush=True)
            continue
        report = probe(chosen, SECONDS)
        if report.healthy:
            return {
                "repaired_by": name,
                "proven": f"{report.figures.get('found_themselves')} of"
                f" {report.figures.get('queried')} find themselves",
                "damaged": damaged,
                "repaired": right(directory),
                "repair": time.perf_counter() - began,
            }
    return {"damaged": damaged, "repair": time.perf_counter() - began}


def kept_in(snapshots: Path, directory: ChromaDirectory) -> ChromaTarget:
    said = {"snapshots": SnapshotSettings(directory=snapshots)}
    return target(directory).model_copy(update=said)


def rebuild(chosen: ChromaTarget, journal: MemoryJournal, **said: Any) -> None:
    index_rebuild.remedy(chosen, IndexRebuild(**said), journal)


def embed(chosen: ChromaTarget, journal: MemoryJournal) -> None:
    rebuild(chosen, journal, embedding_functions={"*": "tests.embeddings:own"})


def roll_back(chosen: ChromaTarget, journal: MemoryJournal) -> None:
    snapshot_rollback.remedy(chosen, SnapshotRollback(), journal)


REMEDIES = {
    "index_rebuild": rebuild,
    "index_rebuild, embedding": embed,
    "snapshot_rollback": roll_back,
}


def right(directory: ChromaDirectory) -> int:
    """Asked of a copy: opening a damaged directory may change it."""
    with servers.folder() as where:
        if not directory.path.exists():
            return 0
        copy = directory.copy(where / "chroma")
        done = ask("right", copy.path, count=COUNT, dimension=DIMENSION)
    lines = done.stdout.splitlines()
    return int(json.loads(lines[-1])["right"]) if done.returncode == 0 and lines else 0


def measure_served(damage: ServedDamage, directory: ChromaDirectory, snapshots: Path) -> Row:
    managed = ManagedChroma(directory, name=directory.path.parent.name).start()
    chosen = managed.target(snapshots=SnapshotSettings(directory=snapshots))
    if not probe(chosen, SECONDS).healthy:
        raise RuntimeError("the undamaged server is not healthy")
    lasting = ExitStack()
    try:
        lasting.enter_context(damage.inflict(managed))
        looked = look(damage, chosen, SERVED_SECONDS)
        heartbeat = managed.served.answers()
        if not damage.passes:
            return Row(**looked, **climb(chosen, looked["found"], directory), heartbeat=heartbeat)
        ended = Timer(PASSING_SECONDS, lasting.close)
        ended.start()
        climbed = climb(chosen, looked["found"], directory)
        ended.join()
        return Row(**looked, **climbed, heartbeat=heartbeat)
    finally:
        lasting.close()
        managed.kill()


def climb(chosen: ChromaTarget, found: str | None, directory: ChromaDirectory) -> dict[str, Any]:
    """The ladder of the shipped policy, until the probe says healthy."""
    policy = load_policy(ROOT / "recovery_config.yml")
    (failure,) = (one for one in find_component("chromadb").failure_types if one.name == found)
    damaged = right(directory)
    began = time.perf_counter()
    for rung in ladder(policy.component("chromadb").strategies, failure):
        attempts = try_rung(rung, chosen, directory.path.with_name("state"))
        seen = probe(chosen, SERVED_SECONDS)
        if seen.healthy:
            return {
                "repaired_by": rung.name,
                "proven": f"{seen.figures.get('found_themselves')} of"
                f" {seen.figures.get('queried')} find themselves, attempt {attempts}",
                "damaged": damaged,
                "repaired": right(directory),
                "repair": time.perf_counter() - began,
            }
    return {
        "proven": "left to a person",
        "damaged": damaged,
        "repaired": right(directory),
        "repair": time.perf_counter() - began,
    }


def try_rung(rung: StrategyPolicy, chosen: ChromaTarget, state: Path) -> int:
    """With its retries, as a worker does; how many attempts there were."""
    remedy = rung.declaration.remedy
    pause = rung.backoff_seconds
    for attempt in range(1, rung.max_retries + 2):
        journal = MemoryJournal(
            state, recovery_id=f"bench-{rung.name}", seconds=rung.timeout_seconds
        )
        try:
            if remedy is not None:
                remedy(chosen, rung.parameters, journal)
        except RemedyError as error:
            print(f"  {rung.name}: {error}", flush=True)
            if not error.transient:
                return attempt
            time.sleep(pause)
            pause *= rung.backoff_multiplier
        else:
            return attempt
    return rung.max_retries + 1


def look(damage: Damage | ServedDamage, broken: ChromaTarget, seconds: float) -> dict[str, Any]:
    began = time.perf_counter()
    glanced = light(broken, seconds)
    between = time.perf_counter()
    found = probe(broken, seconds)
    ended = time.perf_counter()
    return {
        "damage": damage.name,
        "expected": damage.failure_type,
        "found": found.failure_type,
        "took": ended - between,
        "glanced": glanced.failure_type,
        "glance": between - began,
    }


@contextmanager
def started(directory: ChromaDirectory) -> Iterator[ServedChroma]:
    """A server on the directory, given a moment to come up or to give up."""
    directory.path.mkdir(exist_ok=True)
    server = ServedChroma(directory).start(wait=False)
    ends = time.monotonic() + PATIENCE
    while not server.answers() and server.is_running() and time.monotonic() < ends:
        time.sleep(0.05)
    try:
        yield server
    finally:
        server.stop()


if __name__ == "__main__":
    main()

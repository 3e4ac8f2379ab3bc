"""A filesystem without inodes: from the event to the proof, also where all of ours lies on it."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from recovery.components.system.filesystems import Usage
from recovery.events import Result
from tests.components.system.conftest import QUEUES, HostStack, Mount, fill
from tests.components.system.cramped import accepted, cleaned, living_on
from tests.components.system.test_end_to_end import CLEANUP, outcome
from tests.fleet import Fleet
from tests.waiting import until


def use_up(folder: Path) -> int:
    """Empty files until none more can be made; how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    made = 0
    while True:
        try:
            (folder / f"session{made}").touch()
        except OSError:
            return made
        made += 1


def with_inodes(mount: Mount, count: int, mb: int = 16) -> Path:
    return mount(mb, "-t", "tmpfs", "-o", f"size={mb}m,nr_inodes={count}", "tmpfs")


def test_a_filesystem_without_inodes_is_cleaned_and_proven_on_its_own_hosts_queue(
    host: HostStack, fleet: Fleet, mount: Mount
) -> None:
    full = with_inodes(mount, 2000)
    host.write_policy(
        {"filesystems": [str(full)], "watch": ["disk"]},
        {**CLEANUP, "cleanup_paths": [str(full / "tmp")]},
    )
    precious = fill(full / "data", 0.001)
    made = use_up(full / "tmp" / "sessions")
    fleet.start(queues=QUEUES)

    record = host.recover("inode_exhaustion")

    done = outcome(record, fleet)
    assert done.result is Result.RECOVERED, fleet.logs()
    assert done.before.failure_type == "inode_exhaustion"
    assert done.after.healthy
    assert 80 < Usage.of(str(full)).inode_percent < 85
    assert precious.exists()
    left = sum(1 for _ in (full / "tmp" / "sessions").iterdir())
    manifest = Path(host.environ["RECOVERY_STATE_DIR"]) / "kept" / record.id / "removed.jsonl.gz"
    lines = gzip.decompress(manifest.read_bytes()).decode().splitlines()
    kept = sum(line.endswith('"kept"]') for line in lines)
    assert len(lines) - 2 * kept == made - left


@pytest.mark.timeout(600)
@pytest.mark.kill
@pytest.mark.slow
def test_one_that_holds_all_of_ours_is_cleaned_and_the_audit_tells_of_it(
    mount: Mount, tmp_path: Path
) -> None:
    full = with_inodes(mount, 1500, mb=48)
    with living_on(full, tmp_path) as (host, ours):
        use_up(full / "tmp")

        until(lambda: accepted(host, "inode_exhaustion"), seconds=60, what="it is accepted")
        done = until(lambda: cleaned(host), seconds=240, what="its entry is in the audit")

        assert done["result"] == Result.RECOVERED, ours.said()
        # Ours makes files again, too.
        assert Usage.of(str(full)).inode_percent < 90

"""The ChromaDB probe on directories that are really broken."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from recovery.components.chromadb import child, view
from recovery.components.chromadb.findings import Budget
from recovery.components.chromadb.index_files import Broken, read_labels
from recovery.components.chromadb.inspection import Order
from recovery.components.chromadb.probe import light, probe
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import RemedyError
from recovery.finding import find_component
from tests.chroma import (
    COUNT,
    DAMAGES,
    ROOT,
    ChromaDirectory,
    Damage,
    ask,
    noise,
)
from tests.waiting import until

SECONDS = 20.0
LONG = 100.0
"""Where something else takes the machine's time meanwhile."""
"""Patience for a machine under load; what is tested is what is found."""

# What no glance sees: it reads the database's header and list, and which files are there.
DEEP_ONLY = ("overwritten", "truncated", "segments", "schema")
GLANCED = [
    damage
    for damage in DAMAGES
    if damage.name in ("database header zeroed", "database truncated")
    or not any(word in damage.name for word in DEEP_ONLY)
]


def target(directory: ChromaDirectory, **said: Any) -> ChromaTarget:
    return ChromaTarget(path=directory.path, **{"collections": {"docs": 0}, **said})


def test_a_healthy_directory_is_healthy_down_to_its_queries(
    chroma_directory: ChromaDirectory,
) -> None:
    report = probe(target(chroma_directory), SECONDS)

    assert report.healthy, report
    assert report.figures["depth"] == "query"
    assert report.figures["records"] == COUNT + 3
    assert report.figures["queried"] == report.figures["found_themselves"]


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_each_damage_of_a_directory_has_its_name(
    chroma_directory: ChromaDirectory, damage: Damage
) -> None:
    damage.inflict(chroma_directory)

    report = probe(target(chroma_directory), SECONDS)

    assert report.failure_type == damage.failure_type, report
    assert find_component("chromadb").failure_type(damage.failure_type)


@pytest.mark.parametrize("damage", GLANCED, ids=str)
def test_a_glance_finds_what_is_gone(chroma_directory: ChromaDirectory, damage: Damage) -> None:
    assert light(target(chroma_directory), SECONDS).healthy

    damage.inflict(chroma_directory)

    found = light(target(chroma_directory), SECONDS).failure_type
    assert found in (damage.failure_type, "index_corrupted")


def test_looking_changes_nothing_and_leaves_nothing(
    chroma_directory: ChromaDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    before = view.signature(chroma_directory.path)

    assert probe(target(chroma_directory), SECONDS).figures["opened"] == 3
    assert light(target(chroma_directory), SECONDS).healthy

    assert view.signature(chroma_directory.path) == before
    assert list(scratch.iterdir()) == []


@pytest.mark.kill
def test_what_a_killed_prober_leaves_behind_goes_with_a_later_one(
    chroma_directory: ChromaDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    code = "import sys; from pathlib import Path; from recovery.components.chromadb import probe;"
    code += "from recovery.components.chromadb.target import ChromaTarget;"
    code += "probe.probe(ChromaTarget(path=Path(sys.argv[1])), 20)"
    with chroma_directory.locked():
        prober = subprocess.Popen(
            [sys.executable, "-c", code, str(chroma_directory.path)],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(scratch)},
        )
        (abandoned,) = until(lambda: list(scratch.iterdir()), what="a look has begun")
        prober.kill()
        prober.wait()

    with view.private_folder() as held:
        assert abandoned.exists(), "it might still be somebody's"
        for folder in (abandoned, held):
            os.utime(folder, (1, 1))
        with view.private_folder():
            assert not abandoned.exists()
            assert held.is_dir()


def test_a_lock_that_somebody_forgot_is_a_temporary_failure(
    chroma_directory: ChromaDirectory,
) -> None:
    with chroma_directory.locked():
        report = probe(target(chroma_directory), SECONDS)

    assert report.failure_type == "temporary_failure"
    assert "locked" in report.summary
    assert probe(target(chroma_directory), SECONDS).healthy


@pytest.mark.slow
def test_a_directory_that_grows_is_healthy_and_its_application_notices_nothing(
    chroma_directory: ChromaDirectory,
) -> None:
    with chroma_directory.growing():
        reports = [probe(target(chroma_directory), LONG) for _ in range(2)]
        glances = [light(target(chroma_directory), LONG) for _ in range(20)]

    assert [report for report in (*reports, *glances) if not report.healthy] == []
    assert probe(target(chroma_directory), SECONDS).figures["depth"] == "query"


def test_a_directory_that_kills_whoever_opens_it_is_an_index_corrupted(
    chroma_directory: ChromaDirectory,
) -> None:
    noise(chroma_directory.segment / "data_level0.bin")

    report = child.inspect(
        target(chroma_directory), chroma_directory.path, Budget(SECONDS), judges_files=False
    )

    assert report.finding is not None
    assert report.finding.failure_type == "index_corrupted"
    assert report.finding.summary == "opening docs killed the process: SIGSEGV"


@pytest.mark.parametrize("expected", [{}, {"docs": COUNT}], ids=["nothing", "docs"])
@pytest.mark.parametrize("place", [{"tenant": "people"}, {"database": "archive"}], ids=str)
def test_a_directory_without_the_tenant_or_the_database_of_its_target_is_named(
    chroma_directory: ChromaDirectory, place: dict[str, str], expected: dict[str, int]
) -> None:
    theirs = ChromaTarget(path=chroma_directory.path, collections=expected, **place)

    for report in (probe(theirs, SECONDS), light(theirs, SECONDS)):
        assert report.failure_type == "database_missing"
        assert f"{next(iter(place.values()))}" in report.summary


def an_order(folder: Path, **said: Any) -> Order:
    return Order(
        path=str(folder),
        view=str(folder),
        timeout=SECONDS,
        tenant="default_tenant",
        database="default_database",
        latency_ms=1000,
        **said,
    )


def run_python(code: str, folder: Path, seconds: float = SECONDS) -> child.Examined:
    return child.run([sys.executable, "-c", code], an_order(folder), Budget(seconds))


def test_a_look_that_never_ends_is_a_temporary_failure(tmp_path: Path) -> None:
    code = 'import signal; print(\'{"stage": "database"}\', flush=True); signal.pause()'

    report = run_python(code, tmp_path, 1.0)

    assert report.finding is not None
    assert report.finding.failure_type == "temporary_failure"
    assert "database" in report.finding.summary


def test_opening_that_only_takes_long_ends_the_look_and_alarms_nobody(tmp_path: Path) -> None:
    code = 'import signal; print(\'{"stage": "open"}\', flush=True); signal.pause()'

    report = run_python(code, tmp_path, 1.0)

    assert report.finding is None
    assert report.figures == {"opened": "out of time"}


def test_an_inspection_that_fails_by_itself_proves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RemedyError, match="no such module"):
        run_python("raise ImportError('no such module')", tmp_path)


def test_the_child_knows_nothing_of_the_workers_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECOVERY_REDIS_PASSWORD", "hunter2")
    code = "import json, os; seen = {'finding': None, 'figures': dict(os.environ)};"
    code += "print(json.dumps({'verdict': seen}))"

    seen = run_python(code, tmp_path).figures

    assert seen["ANONYMIZED_TELEMETRY"] == "False"
    assert "hunter2" not in str(seen)


def test_a_map_of_ids_is_read_and_never_run(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "touched",)

    (tmp_path / view.PICKLE).write_bytes(pickle.dumps({"id_to_label": Malicious()}))

    with pytest.raises(Broken, match="UnpicklingError"):
        read_labels(tmp_path)

    assert not (tmp_path / "touched").exists()


@pytest.mark.slow
def test_a_log_that_is_never_purged_rebuilds_a_lost_index_and_is_healthy(
    tmp_path: Path, chroma_template: ChromaDirectory
) -> None:
    started = ask("query", tmp_path / "chroma", count=1, dimension=16)
    assert started.returncode == 0
    directory = ChromaDirectory(tmp_path / "chroma")
    directory.change(
        "UPDATE embeddings_queue_config SET config_json_str ="
        " replace(config_json_str, 'true', 'false')"
    )
    ChromaDirectory.build(directory.path, count=300, threshold=100)
    subprocess.run(["rm", "-r", str(directory.segment)], check=True)

    assert light(target(directory), SECONDS).healthy
    assert probe(target(directory), SECONDS).healthy


def test_fewer_records_than_expected_are_a_data_corruption(
    chroma_directory: ChromaDirectory,
) -> None:
    assert probe(target(chroma_directory, collections={"docs": COUNT}), SECONDS).healthy

    report = probe(target(chroma_directory, collections={"docs": COUNT + 1}), SECONDS)

    assert report.failure_type == "data_corruption"


def test_a_directory_that_may_not_be_read_calls_a_person(
    chroma_directory: ChromaDirectory,
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    chroma_directory.database.chmod(0)

    for look in (light, probe):
        assert look(target(chroma_directory), SECONDS).failure_type == "auth_failure"

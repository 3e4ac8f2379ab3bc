"""The ChromaDB probe on directories and servers that are really broken."""

from __future__ import annotations

import os
import pickle
import signal
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import SecretStr

from recovery.components.chromadb import child, view
from recovery.components.chromadb.evidence import evidence
from recovery.components.chromadb.findings import Budget
from recovery.components.chromadb.index_files import Broken, read_labels
from recovery.components.chromadb.inspection import Order
from recovery.components.chromadb.probe import light, probe
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import RemedyError
from recovery.strategy import find_component
from tests.chroma import (
    COUNT,
    DAMAGES,
    INDEX_DAMAGES,
    ChromaDirectory,
    Damage,
    ServedChroma,
    ask,
    gate,
    noise,
)
from tests.servers import black_hole, free_port
from tests.waiting import until

SECONDS = 20.0
"""Patience for a machine under load; what is tested is what is found."""

# What no glance sees: it reads the database's header and list, and which files are there.
DEEP_ONLY = ("overwritten", "truncated", "segments", "schema")
GLANCED = [
    damage
    for damage in DAMAGES
    if damage.name in ("database header zeroed", "database truncated")
    or not any(word in damage.name for word in DEEP_ONLY)
]

# What a server that starts anew shows by itself, without a look at its directory. Not here: upper
# links that are wrong, of which it shows nothing until a query happens to follow one.
SERVED = {
    "segment folder deleted": "index_incomplete",
    "pickle deleted": "index_incomplete",
    "pickle overwritten": "index_corrupted",
    "header.bin deleted": "index_corrupted",
    "header.bin truncated": "index_corrupted",
    "data_level0.bin deleted": "index_corrupted",
    "data_level0.bin overwritten": "index_corrupted",
    "data_level0.bin truncated": "index_corrupted",
    "length.bin overwritten": "index_incomplete",
    "link_lists.bin deleted": "index_corrupted",
}
SERVED_DAMAGES = [damage for damage in INDEX_DAMAGES if damage.name in SERVED]


def target(directory: ChromaDirectory, **said: Any) -> ChromaTarget:
    return ChromaTarget(path=directory.path, **{"collections": {"docs": 0}, **said})


def served(server: ServedChroma, **said: Any) -> ChromaTarget:
    return ChromaTarget(url=server.url, **{"collections": {"docs": 0}, **said})


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


def test_what_a_killed_prober_left_behind_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    abandoned = tmp_path / f"{view.PREFIX}abandoned"
    (abandoned / "0").mkdir(parents=True)
    os.utime(abandoned, (1, 1))

    with view.private_folder() as held:
        os.utime(held, (1, 1))
        with view.private_folder():
            assert held.is_dir()
            assert not abandoned.exists()


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
        reports = [probe(target(chroma_directory), SECONDS) for _ in range(2)]
        glances = [light(target(chroma_directory), SECONDS) for _ in range(20)]

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


def test_the_collections_of_the_targets_own_database_are_meant(
    chroma_server: ServedChroma,
) -> None:
    chroma_server.stop()
    place = {"tenant": "people", "database": "archive"}
    assert ask("add_database", chroma_server.directory.path, **place).returncode == 0
    chroma_server.start()
    there: dict[str, Any] = {"collections": {"elsewhere": 3}}

    for where in (served(chroma_server, **there), target(chroma_server.directory, **there)):
        assert probe(where, SECONDS).failure_type == "collection_missing"
        assert probe(where.model_copy(update=place), SECONDS).healthy


def test_a_directory_that_may_not_be_read_calls_a_person(
    chroma_directory: ChromaDirectory,
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    chroma_directory.database.chmod(0)

    for look in (light, probe):
        assert look(target(chroma_directory), SECONDS).failure_type == "auth_failure"


def test_a_healthy_server_is_healthy_and_has_figures(chroma_server: ServedChroma) -> None:
    report = probe(served(chroma_server), SECONDS)

    assert report.healthy, report
    assert report.figures["asked"] == 3
    assert report.figures["queried"] == report.figures["found_themselves"]
    assert light(served(chroma_server), SECONDS).healthy


def test_a_killed_server_refuses_connections(chroma_server: ServedChroma) -> None:
    chroma_server.kill()

    for look in (light, probe):
        assert look(served(chroma_server), SECONDS).failure_type == "connection_error"

    chroma_server.start()
    assert probe(served(chroma_server), SECONDS).healthy


def test_a_stopped_server_accepts_and_never_answers(chroma_server: ServedChroma) -> None:
    chroma_server.send_signal(signal.SIGSTOP)

    for look in (light, probe):
        assert look(served(chroma_server), 1.0).failure_type == "connection_timeout"

    chroma_server.send_signal(signal.SIGCONT)
    assert probe(served(chroma_server), SECONDS).healthy


def test_a_server_that_drops_packets_is_a_connection_timeout() -> None:
    with black_hole() as port:
        report = probe(ChromaTarget(url=f"http://127.0.0.1:{port}"), 0.5)

    assert report.failure_type == "connection_timeout"


def test_a_server_that_is_no_chroma_is_not_believed(chroma_server: ServedChroma) -> None:
    with gate(chroma_server, "Host", "nobody") as url:
        assert probe(ChromaTarget(url=f"{url}/x"), SECONDS).failure_type == "auth_failure"
    with gate(chroma_server, "X-None", "") as url:
        assert not probe(ChromaTarget(url=url), SECONDS).healthy


@pytest.mark.parametrize(
    ("header", "value"),
    [("authorization", "Bearer right"), ("x-chroma-token", "right")],
)
def test_a_refused_token_is_an_auth_failure(
    chroma_server: ServedChroma, header: str, value: str, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("right\n")
    said: dict[str, Any] = {"auth_header": header}
    with gate(chroma_server, header, value) as url:
        right = ChromaTarget(url=url, token=SecretStr("right"), **said)
        from_file = ChromaTarget(url=url, token_file=file, **said)
        wrong = ChromaTarget(url=url, token=SecretStr("wrong"), **said)

        assert probe(right, SECONDS).healthy
        assert probe(from_file, SECONDS).healthy
        report = probe(wrong, SECONDS)

    assert report.failure_type == "auth_failure"
    assert "wrong" not in str(report)
    file.unlink()
    assert probe(from_file, SECONDS).failure_type == "auth_failure"


def test_a_server_behind_tls_is_trusted_by_its_own_authority(
    chroma_server: ServedChroma, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    token = SecretStr("right")

    with gate(chroma_server, "Authorization", "Bearer right", tls) as url:
        trusted = ChromaTarget(url=url, token=token, tls_ca_file=str(tmp_path / "ca.pem"))
        assert probe(trusted, SECONDS).healthy
        assert probe(ChromaTarget(url=url, token=token), SECONDS).failure_type == "connection_error"


def test_a_lock_on_a_servers_database_is_a_temporary_failure(chroma_server: ServedChroma) -> None:
    with chroma_server.directory.locked():
        report = probe(served(chroma_server), 2.0)

    assert report.failure_type == "temporary_failure", report


def test_a_slow_server_has_high_latency(chroma_server: ServedChroma) -> None:
    slow = served(chroma_server, thresholds={"latency_ms": 0.000001})

    for look in (light, probe):
        assert look(slow, SECONDS).failure_type == "high_latency"


def test_a_deleted_collection_is_missing_on_a_server(chroma_server: ServedChroma) -> None:
    for look in (light, probe):
        found = look(served(chroma_server, collections={"gone": 0}), SECONDS)
        assert found.failure_type == "collection_missing"


@pytest.mark.parametrize("damage", SERVED_DAMAGES, ids=str)
def test_what_a_server_shows_of_a_damaged_index_after_its_start(
    chroma_directory: ChromaDirectory, damage: Damage
) -> None:
    damage.inflict(chroma_directory)
    server = ServedChroma(chroma_directory).start()

    report = probe(served(server), SECONDS)

    assert report.failure_type == SERVED[damage.name], report
    server.stop()


def test_an_index_damaged_under_a_live_server_is_only_seen_on_its_disk(
    chroma_server: ServedChroma,
) -> None:
    assert probe(served(chroma_server), SECONDS).healthy
    noise(chroma_server.directory.segment / "data_level0.bin")

    assert probe(served(chroma_server), SECONDS).healthy
    on_disk = probe(served(chroma_server, path=chroma_server.directory.path), SECONDS)
    assert on_disk.failure_type == "index_corrupted"


def test_a_database_removed_under_a_live_server_is_missed_on_its_disk(
    chroma_server: ServedChroma,
) -> None:
    both = served(chroma_server, path=chroma_server.directory.path)
    assert probe(both, SECONDS).healthy
    chroma_server.directory.database.unlink()

    assert chroma_server.answers()
    assert probe(both, SECONDS).failure_type == "database_missing"


def test_a_server_that_cannot_start_is_explained_by_its_disk(chroma_server: ServedChroma) -> None:
    chroma_server.stop()
    chroma_server.directory.database.write_bytes(bytes(4096))
    chroma_server.start(wait=False)
    assert chroma_server.process is not None
    until(lambda: chroma_server.process.poll() is not None, what="the server gives up")

    assert probe(served(chroma_server), SECONDS).failure_type == "connection_error"
    on_disk = probe(served(chroma_server, path=chroma_server.directory.path), SECONDS)
    assert on_disk.failure_type == "data_corruption"


def test_evidence_names_files_and_collections_and_no_content(chroma_server: ServedChroma) -> None:
    both = served(chroma_server, path=chroma_server.directory.path)

    said = evidence(both, SECONDS)

    assert said["directory"]["files"]["chroma.sqlite3"]
    assert set(said["server"]["collections"]) == {"docs", "notes", "empty"}
    assert "document 1" not in str(said)
    chroma_server.kill()
    assert "unavailable" in evidence(both, SECONDS)["server"]


def test_an_event_picks_a_target_by_its_path_its_url_or_its_port() -> None:
    port = free_port()
    one = ChromaTarget(url=f"http://127.0.0.1:{port}/", path=Path("/data/chroma"))

    assert one.is_selected_by({"path": "/data/chroma/"})
    assert one.is_selected_by({"url": f"http://127.0.0.1:{port}"})
    assert one.is_selected_by({"host": "localhost", "port": port})
    assert not one.is_selected_by({"path": "/data/other"})
    assert not one.is_selected_by({"host": "localhost", "port": 1})
    assert not ChromaTarget(path=Path("/data/chroma")).is_selected_by({"port": port})

"""The ChromaDB probe on servers that are really broken."""

from __future__ import annotations

import signal
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import SecretStr

from recovery.components.chromadb import served as asking
from recovery.components.chromadb.evidence import evidence
from recovery.components.chromadb.findings import Budget
from recovery.components.chromadb.probe import light, probe
from recovery.components.chromadb.sampling import SAMPLE
from recovery.components.chromadb.snapshots import contents
from recovery.components.chromadb.target import ChromaTarget
from tests.chroma import (
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

# What a server that starts anew shows by itself, without a look at its directory. Not here: wrong
# links and lengths, of which it shows nothing until a query happens to meet one.
SERVED = {
    "segment folder deleted": "index_incomplete",
    "pickle deleted": "index_incomplete",
    "pickle overwritten": "index_corrupted",
    "header.bin deleted": "index_corrupted",
    "header.bin truncated": "index_corrupted",
    "data_level0.bin deleted": "index_corrupted",
    "data_level0.bin overwritten": "index_corrupted",
    "data_level0.bin truncated": "index_corrupted",
    "link_lists.bin deleted": "index_corrupted",
}
SERVED_DAMAGES = [damage for damage in INDEX_DAMAGES if damage.name in SERVED]


def served(server: ServedChroma, **said: Any) -> ChromaTarget:
    return ChromaTarget(url=server.url, **{"collections": {"docs": 0}, **said})


def test_a_healthy_server_is_healthy_and_has_figures(chroma_server: ServedChroma) -> None:
    report = probe(served(chroma_server), SECONDS)

    assert report.healthy, report
    assert report.figures["asked"] == 3
    assert report.figures["queried"] == report.figures["found_themselves"]
    assert light(served(chroma_server), SECONDS).healthy


def test_a_server_is_asked_for_records_that_its_files_name(
    chroma_server: ServedChroma, chroma_directory: ChromaDirectory
) -> None:
    target, budget = served(chroma_server), Budget(SECONDS)
    drawn: dict[str, list[str]] = {}

    def known(collection: str) -> list[str]:
        drawn[collection] = contents.drawn(chroma_directory.path, collection)
        return drawn[collection]

    found = asking.examine(target, chroma_server.url, budget, known)

    assert found.finding is None, found
    assert len(drawn) == 3
    assert max(map(len, drawn.values())) == SAMPLE
    assert found.figures["sampled"] == sum(map(len, drawn.values()))
    assert found.figures["queried"] == found.figures["found_themselves"] == found.figures["sampled"]


def test_records_that_the_files_name_and_the_server_does_not_give_are_a_finding(
    chroma_server: ServedChroma,
) -> None:
    found = asking.examine(
        served(chroma_server), chroma_server.url, Budget(SECONDS), lambda _: ["one", "two"]
    )

    assert found.finding is not None
    assert "2 of 2 records of its database are not in its answer" in found.finding.summary


def test_nothing_is_drawn_where_no_database_can_be_read(tmp_path: Path) -> None:
    assert contents.drawn(tmp_path, "any") == []


def test_a_killed_server_refuses_connections(chroma_server: ServedChroma) -> None:
    chroma_server.kill()

    for look in (light, probe):
        assert look(served(chroma_server), SECONDS).failure_type == "connection_error"

    chroma_server.start()
    assert probe(served(chroma_server), SECONDS).healthy


def test_a_stopped_server_accepts_and_never_answers(chroma_server: ServedChroma) -> None:
    chroma_server.send_signal(signal.SIGSTOP)

    for look in (light, probe):
        report = look(served(chroma_server, answer_timeout=0.2), SECONDS)
        assert report.failure_type == "connection_timeout"
        assert "0.2 s" in report.summary

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
        report = probe(served(chroma_server), SECONDS)

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
    until(lambda: not chroma_server.is_running(), what="the server gives up")

    assert probe(served(chroma_server), SECONDS).failure_type == "connection_error"
    on_disk = probe(served(chroma_server, path=chroma_server.directory.path), SECONDS)
    assert on_disk.failure_type == "data_corruption"


def test_the_collections_of_the_targets_own_database_are_meant(
    chroma_server: ServedChroma,
) -> None:
    chroma_server.stop()
    place = {"tenant": "people", "database": "archive"}
    assert ask("add_database", chroma_server.directory.path, **place).returncode == 0
    chroma_server.start()
    there: dict[str, Any] = {"collections": {"elsewhere": 3}}

    on_disk = ChromaTarget(path=chroma_server.directory.path, **there)
    for where in (served(chroma_server, **there), on_disk):
        assert probe(where, SECONDS).failure_type == "collection_missing"
        assert probe(where.model_copy(update=place), SECONDS).healthy


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


def test_a_token_that_no_header_can_hold_is_told_to_nobody(chroma_server: ServedChroma) -> None:
    target = served(chroma_server, token=SecretStr("secret-in-clear\nand more"))

    report = probe(target, SECONDS)

    assert report.failure_type == "auth_failure"
    assert "secret-in-clear" not in str(report.as_dict())

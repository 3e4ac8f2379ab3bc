"""``chromadb.index_rebuild`` beside servers and applications that go on working."""

from __future__ import annotations

import ssl
from functools import cache
from pathlib import Path

import httpx
import pytest
import trustme
from pydantic import SecretStr

from recovery.components.chromadb.probe import probe
from recovery.errors import RemedyError, TargetUnreachable, VectorsLost
from tests.chroma import (
    COUNT,
    DIMENSION,
    ChromaDirectory,
    ManagedChroma,
    ServedChroma,
    ask,
    gate,
    noise,
)
from tests.chroma_child import vectors
from tests.components.chromadb.rebuilds import OWN, contents, local, rebuild
from tests.journals import MemoryJournal
from tests.waiting import until

SECONDS = 30.0
PLACE = "/api/v2/tenants/default_tenant/databases/default_database/collections"


class Client:
    """What an application does with the collection ``docs`` of a server."""

    def __init__(self, url: str) -> None:
        listed = httpx.get(f"{url}{PLACE}", timeout=30).json()
        (identity,) = [found["id"] for found in listed if found["name"] == "docs"]
        self._docs = f"{url}{PLACE}/{identity}"

    def add(self, name: str, seed: int) -> None:
        said = {"ids": [name], "embeddings": vectors(1, DIMENSION, seed), "documents": [name]}
        httpx.post(f"{self._docs}/add", json=said, timeout=30).raise_for_status()

    def nearest(self, vector: list[float], hits: int = 1) -> list[str]:
        said = {"query_embeddings": [vector], "n_results": hits, "include": []}
        answer = httpx.post(f"{self._docs}/query", json=said, timeout=30).raise_for_status()
        found: list[str] = answer.json()["ids"][0]
        return found


def test_a_running_server_goes_over_to_the_new_index_without_a_restart(
    managed_chroma: ManagedChroma, tmp_path: Path
) -> None:
    """Its index was damaged on the disk, and is still well in its memory."""
    target = managed_chroma.target()
    client = Client(managed_chroma.served.url)
    assert probe(target, SECONDS).healthy
    noise(managed_chroma.directory.segment / "data_level0.bin")
    assert probe(target, SECONDS).failure_type == "index_corrupted"
    process = managed_chroma.process.inspect().id
    journal = MemoryJournal(tmp_path, seconds=120)
    # Written while the index is built: only the log knows it then.
    journal.after("found right", lambda: client.add("meanwhile", 5))

    rebuild(target, tmp_path, journal=journal)

    assert probe(target, SECONDS).healthy
    assert managed_chroma.process.inspect().id == process
    assert client.nearest(vectors(1, DIMENSION, 5)[0]) == ["meanwhile"]
    assert len(client.nearest(vectors(1, DIMENSION)[0], 1_500)) == 1_500
    read = next(step.figures["records"] for step in journal.steps if "running server" in step.text)
    assert read == 2_000
    managed_chroma.process.restart(10)
    until(managed_chroma.served.answers, seconds=60, what="it answers")
    assert probe(target, SECONDS).healthy


def test_a_server_that_died_of_its_index_is_started_on_the_new_one(
    managed_chroma: ManagedChroma, tmp_path: Path
) -> None:
    managed_chroma.kill()
    noise(managed_chroma.directory.segment / "data_level0.bin")
    target = managed_chroma.target()

    journal = rebuild(target, tmp_path, **OWN)

    assert "server started" in journal.texts
    assert probe(target, SECONDS).healthy


def test_a_server_that_nobody_can_start_is_said_to_be_away(
    chroma_server: ServedChroma, tmp_path: Path
) -> None:
    chroma_server.kill()
    (chroma_server.directory.segment / "header.bin").unlink()
    target = local(chroma_server.directory, url=chroma_server.url)

    with pytest.raises(TargetUnreachable, match="no runtime to start it with"):
        rebuild(target, tmp_path)

    chroma_server.start()
    assert probe(target, SECONDS).healthy, "the index itself was built"


@pytest.mark.slow
def test_what_an_application_writes_meanwhile_is_not_lost(
    chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    """It holds the directory open, writes without a pause and knows nothing of the repair."""
    with chroma_directory.growing() as application:
        assert application.stdout is not None
        application.stdout.readline()
        rebuild(local(chroma_directory), tmp_path, collection="docs", lock_patience=60)
        application.stdout.readline()

    docs = contents(chroma_directory)["docs"]["records"]
    assert len(docs) > COUNT
    for name, (vector, *_) in docs.items():
        assert vector == pytest.approx(written(int(name.removeprefix("id-"))), abs=1e-4)
    assert probe(local(chroma_directory), SECONDS).healthy


@cache
def batch(first: int, size: int) -> list[list[float]]:
    return vectors(size, DIMENSION, seed=first or 7)


def written(number: int) -> list[float]:
    """The vector that the fixture and the application gave the record of that number."""
    if number < COUNT:
        return batch(0, COUNT)[number]
    first = COUNT + (number - COUNT) // 60 * 60
    return batch(first, 60)[number - first]


def test_vectors_are_read_through_tls_with_a_token(
    chroma_server: ServedChroma, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    said = {"token": SecretStr("right"), "tls_ca_file": str(tmp_path / "ca.pem")}

    with gate(chroma_server, "Authorization", "Bearer right", tls) as url:
        target = local(chroma_server.directory, url=url, **said)
        assert probe(target, SECONDS).healthy
        noise(chroma_server.directory.segment / "data_level0.bin")
        with pytest.raises(VectorsLost) as caught:
            rebuild(target.model_copy(update={"token": SecretStr("wrong")}), tmp_path)
        assert "wrong" not in str(caught.value)

        rebuild(target, tmp_path)

        assert probe(target, SECONDS).healthy


def test_a_collection_of_another_tenant_is_repaired_as_well(
    chroma_directory: ChromaDirectory, tmp_path: Path
) -> None:
    place = {"tenant": "people", "database": "archive"}
    assert ask("add_database", chroma_directory.path, **place).returncode == 0
    assert ask("add_saved", chroma_directory.path, name="saved", **place).returncode == 0
    saved = {p.parent for p in chroma_directory.path.glob("*/header.bin")}
    (other,) = saved - {chroma_directory.segment, *small(chroma_directory)}
    (other / "header.bin").unlink()
    theirs = local(chroma_directory, **place, collections={"saved": 1_200})
    assert probe(theirs, SECONDS).failure_type == "index_corrupted"

    with pytest.raises(RemedyError, match="there is no collection 'saved'"):
        rebuild(local(chroma_directory), tmp_path, collection="saved")
    rebuild(theirs, tmp_path)

    assert probe(theirs, SECONDS).healthy
    assert probe(local(chroma_directory), SECONDS).healthy


def small(directory: ChromaDirectory) -> set[Path]:
    """The indexes that were never saved."""
    return {
        folder
        for folder in directory.path.iterdir()
        if folder.is_dir() and not (folder / "index_metadata.pickle").exists()
    }

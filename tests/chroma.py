"""Real ChromaDB directories and servers for tests, and every way to break them for real.

The client is used only in processes of their own: damaged files kill whoever opens them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.servers import free_port
from tests.waiting import until

ROOT = Path(__file__).resolve().parent.parent
COUNT = 2_400
"""Past the sync threshold of 1,000 twice, and 400 that are only in the write-ahead log."""
DIMENSION = 16
INDEX_FILES = ("header.bin", "data_level0.bin", "length.bin", "link_lists.bin")
PICKLE = "index_metadata.pickle"


def require_chromadb() -> None:
    if find_spec("chromadb") is None:
        pytest.skip("the chromadb package is not installed")


def ask(action: str, path: Path, **said: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.chroma_child", action, str(path), json.dumps(said)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@dataclass(slots=True)
class ChromaDirectory:
    """A directory with the collections ``docs`` (2,400 × 16), ``notes`` (3 × 8) and ``empty``."""

    path: Path

    @property
    def database(self) -> Path:
        return self.path / "chroma.sqlite3"

    @property
    def segment(self) -> Path:
        """The folder of the index of ``docs``."""
        with sqlite3.connect(self.database) as database:
            found = database.execute(
                "SELECT s.id FROM segments s JOIN collections c ON s.collection = c.id"
                " WHERE c.name = 'docs' AND s.scope = 'VECTOR'"
            ).fetchone()
        database.close()
        return self.path / str(found[0])

    @classmethod
    def build(cls, path: Path, space: str = "cosine", **said: Any) -> ChromaDirectory:
        options = {"count": COUNT, "dimension": DIMENSION, "space": space, **said}
        done = ask("build", path, **options)
        assert done.returncode == 0, done.stderr
        return cls(path)

    def copy(self, path: Path) -> ChromaDirectory:
        shutil.copytree(self.path, path)
        return ChromaDirectory(path)

    def as_seen(self) -> dict[str, Any]:
        """What an application that opens it sees; ``exit`` is negative where a signal ended it."""
        done = ask("query", self.path, count=COUNT, dimension=DIMENSION)
        lines = done.stdout.splitlines()
        return {**(json.loads(lines[-1]) if lines else {}), "exit": done.returncode}


@dataclass(slots=True)
class ServedChroma:
    """One ``chroma run`` on a directory and a port of its own."""

    directory: ChromaDirectory
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.directory.path.with_name("chroma.log")

    def start(self, *, wait: bool = True) -> ServedChroma:
        command = [str(Path(sys.executable).with_name("chroma")), "run"]
        command += ["--path", str(self.directory.path)]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.directory.path.parent, stdout=log, stderr=log
            )
        if wait:
            until(self.answers, seconds=30, what=f"chroma on {self.port} answers")
        return self

    def answers(self) -> bool:
        with suppress(urllib.error.URLError, ConnectionError):
            with urllib.request.urlopen(f"{self.url}/api/v2/heartbeat", timeout=5) as answer:
                return bool(answer.status == 200)
        return False

    def send_signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()


@pytest.fixture(scope="session")
def chroma_template(tmp_path_factory: pytest.TempPathFactory) -> ChromaDirectory:
    """A healthy directory; never broken itself, only copied."""
    require_chromadb()
    return ChromaDirectory.build(tmp_path_factory.mktemp("chroma") / "template")


@pytest.fixture
def chroma_directory(chroma_template: ChromaDirectory, tmp_path: Path) -> ChromaDirectory:
    """A directory that the test may break."""
    return chroma_template.copy(tmp_path / "chroma")


@pytest.fixture
def chroma_server(chroma_directory: ChromaDirectory) -> Iterator[ServedChroma]:
    """A server that the test may break, on a directory that it may break too."""
    server = ServedChroma(chroma_directory).start()
    yield server
    server.stop()


@dataclass(frozen=True, slots=True)
class Damage:
    """One way to break a directory, and the failure type by which it must be known."""

    name: str
    failure_type: str
    inflict: Callable[[ChromaDirectory], None]

    def __str__(self) -> str:
        return self.name


def overwrite(path: Path, content: bytes, at: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def truncate(path: Path, share: float = 0.5) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def noise(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def change_database(directory: ChromaDirectory, statement: str) -> None:
    database = sqlite3.connect(directory.database)
    database.execute(statement)
    database.commit()
    database.close()


def spoil_pages(directory: ChromaDirectory) -> None:
    """Garbage in the middle of the database: it opens, and some of its tables do not read."""
    size = directory.database.stat().st_size
    overwrite(directory.database, os.urandom(size // 2), at=size // 4 // 4096 * 4096)


def start_anew(directory: ChromaDirectory) -> None:
    """The file is removed and an application comes by, which makes a new, empty one."""
    directory.database.unlink()
    ask("query", directory.path, count=1, dimension=DIMENSION)


def remove(name: str) -> Callable[[ChromaDirectory], None]:
    return lambda directory: (directory.segment / name).unlink()


def spoil(name: str) -> Callable[[ChromaDirectory], None]:
    return lambda directory: noise(directory.segment / name)


def shorten(name: str) -> Callable[[ChromaDirectory], None]:
    return lambda directory: truncate(directory.segment / name)


DATABASE_DAMAGES = (
    Damage(
        "database header zeroed", "data_corruption", lambda d: overwrite(d.database, bytes(100))
    ),
    Damage("database truncated", "data_corruption", lambda d: truncate(d.database)),
    Damage("database pages overwritten", "data_corruption", spoil_pages),
    Damage("database emptied", "database_missing", lambda d: truncate(d.database, 0)),
    Damage("database removed", "database_missing", lambda d: d.database.unlink()),
    Damage("database started anew", "database_missing", start_anew),
    Damage("directory removed", "database_missing", lambda d: shutil.rmtree(d.path)),
)

INDEX_DAMAGES = (
    Damage("segment folder deleted", "index_incomplete", lambda d: shutil.rmtree(d.segment)),
    Damage("pickle deleted", "index_incomplete", remove(PICKLE)),
    *(
        Damage(f"{name} {how}", "index_corrupted", inflict(name))
        for name in INDEX_FILES
        for how, inflict in (("deleted", remove), ("overwritten", spoil), ("truncated", shorten))
    ),
    Damage("pickle overwritten", "index_corrupted", spoil(PICKLE)),
    Damage("pickle truncated", "index_corrupted", shorten(PICKLE)),
)

COLLECTION_DAMAGES = (
    Damage(
        "collection deleted", "collection_missing", lambda d: ask("delete", d.path, name="docs")
    ),
    Damage(
        "segments of a collection gone",
        "corrupted_metadata",
        lambda d: change_database(d, "DELETE FROM segments WHERE scope = 'VECTOR'"),
    ),
    Damage(
        "schema of a collection unreadable",
        "corrupted_metadata",
        lambda d: change_database(d, "UPDATE collections SET schema_str = '{' WHERE name = 'docs'"),
    ),
)

DAMAGES = (*DATABASE_DAMAGES, *INDEX_DAMAGES, *COLLECTION_DAMAGES)

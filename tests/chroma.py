"""Real ChromaDB directories and servers for tests, and every way to break them for real.

The client is used only in processes of their own: damaged files kill whoever opens them.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import sqlite3
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from recovery.components.chromadb.target import ChromaTarget
from recovery.deadline import Deadline
from recovery.runtime import CommandRuntime, DockerRuntime, Process, manage
from tests.servers import free_port
from tests.waiting import until

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

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
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.path, path)
        return ChromaDirectory(path)

    def change(self, statement: str) -> None:
        database = sqlite3.connect(self.database)
        database.execute(statement)
        database.commit()
        database.close()

    def as_seen(self) -> dict[str, Any]:
        """What an application that opens it sees; ``exit`` is negative where a signal ended it."""
        done = ask("query", self.path, count=COUNT, dimension=DIMENSION)
        lines = done.stdout.splitlines()
        return {**(json.loads(lines[-1]) if lines else {}), "exit": done.returncode}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Another process holds the database's write lock and does nothing with it."""
        hold = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None);"
        hold += "db.execute('BEGIN EXCLUSIVE'); print('held', flush=True); sys.stdin.read()"
        with child([sys.executable, "-c", hold, str(self.database)]) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            yield

    @contextmanager
    def growing(self) -> Iterator[subprocess.Popen[str]]:
        """An application adds, deletes and queries without a pause, one batch a line."""
        said = json.dumps({"count": COUNT, "dimension": DIMENSION, "batch": 60})
        command = [sys.executable, "-m", "tests.chroma_child", "keep_adding", str(self.path), said]
        with child(command) as application:
            assert application.stdout is not None
            application.stdout.readline()
            yield application


@contextmanager
def child(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that ends when its standard input is closed; fails the test where it fails."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    try:
        yield process
        _, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


@dataclass(slots=True)
class ServedChroma:
    """One ``chroma run`` on a directory and a port of its own."""

    directory: ChromaDirectory
    port: int = field(default_factory=free_port)
    from_within: bool = False
    """It names its directory from its working folder, as a container names its mount: a folder
    that is put in that one's place stays unseen until it is started anew."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.directory.path.with_name("chroma.log")

    @property
    def command(self) -> tuple[str, ...]:
        program = str(Path(sys.executable).with_name("chroma"))
        path = self.directory.path
        place = ("--path", path.name if self.from_within else str(path), "--host", "127.0.0.1")
        return (program, "run", *place, "--port", str(self.port))

    def start(self, *, wait: bool = True) -> ServedChroma:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.directory.path.parent, stdout=log, stderr=log
            )
        if wait:
            until(self.answers, seconds=30, what=f"chroma on {self.port} answers")
        return self

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/api/v2/heartbeat", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send_signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def stop(self) -> None:
        if self.process is None or not self.is_running():
            return
        self.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()


@dataclass(slots=True)
class ManagedChroma:
    """A server that runs as its target's policy says: whoever knows the target starts and stops it.

    Its pid file lies in ``$RECOVERY_STATE_DIR`` of whoever does.
    """

    directory: ChromaDirectory
    name: str = "chroma"
    port: int = field(default_factory=free_port)
    from_within: bool = False

    @property
    def served(self) -> ServedChroma:
        return ServedChroma(self.directory, self.port, self.from_within)

    @property
    def runtime(self) -> CommandRuntime:
        return CommandRuntime(
            kind="command",
            name=self.name,
            start=self.served.command,
            folder=str(self.directory.path.parent),
            log_file=str(self.served.log),
        )

    def target(self, **said: Any) -> ChromaTarget:
        known = {"url": self.served.url, "path": self.directory.path, "runtime": self.runtime}
        return ChromaTarget(**{**known, "collections": {"docs": COUNT}, **said})

    @property
    def process(self) -> Process:
        return manage(self.runtime, Deadline(60).remaining)

    def start(self) -> ManagedChroma:
        self.process.start()
        until(self.served.answers, seconds=60, what=f"chroma on {self.port} answers")
        return self

    def kill(self) -> None:
        pid = self.process.inspect().pid
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            until(lambda: not self.process.inspect().running, what="the server is gone")


@dataclass(frozen=True, slots=True)
class ContainedChroma:
    """A server in a container that has this machine's programs, and its network."""

    served: ServedChroma
    container: Container

    def target(self) -> ChromaTarget:
        runtime = DockerRuntime(kind="docker", container=self.container.name)
        return ChromaTarget(
            url=self.served.url, runtime=runtime, collections={"docs": COUNT}, answer_timeout=10
        )


class Gate(BaseHTTPRequestHandler):
    """A reverse proxy that lets nobody through without the token, as one puts before a Chroma:
    since 1.0 a server has no credentials of its own."""

    upstream: ClassVar[str]
    header: ClassVar[str]
    token: ClassVar[str]

    def do_GET(self) -> None:
        self.forward(None)

    def do_POST(self) -> None:
        self.forward(self.rfile.read(int(self.headers["Content-Length"])))

    def forward(self, body: bytes | None) -> None:
        if self.headers.get(self.header) != self.token:
            self.send_error(401)
            return
        asked = urllib.request.Request(f"{self.upstream}{self.path}", data=body)
        asked.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(asked, timeout=30) as answer:
            content = answer.read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Tests read answers, not logs."""


@contextmanager
def gate(
    server: ServedChroma, header: str, token: str, tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """The URL of a proxy before a server that wants ``header: token``."""
    said = {"upstream": server.url, "header": header, "token": token}
    with ThreadingHTTPServer(("127.0.0.1", 0), type("TestGate", (Gate,), said)) as proxy:
        if tls is not None:
            proxy.socket = tls.wrap_socket(proxy.socket, server_side=True)
        serving = threading.Thread(target=proxy.serve_forever, args=(0.05,))
        serving.start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{proxy.server_address[1]}"
        proxy.shutdown()
        serving.join()


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


@pytest.fixture
def managed_chroma(
    chroma_directory: ChromaDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ManagedChroma]:
    """A server that runs, with its pid file in this test's own state directory."""
    monkeypatch.setenv("RECOVERY_STATE_DIR", str(tmp_path / "state"))
    managed = ManagedChroma(chroma_directory).start()
    yield managed
    managed.kill()


@pytest.fixture
def chroma_container(
    chroma_directory: ChromaDirectory, docker_engine: DockerClient, docker_image: str
) -> Iterator[ContainedChroma]:
    served = ServedChroma(chroma_directory)
    own = str(chroma_directory.path.parent)
    programs = {str(Path(place).resolve()) for place in ("/usr", sys.prefix, sys.base_prefix)}
    container = docker_engine.containers.run(
        docker_image,
        list(served.command),
        name=f"chroma-{secrets.token_hex(4)}",
        network_mode="host",
        working_dir=own,
        volumes={
            **{place: {"bind": place, "mode": "ro"} for place in programs},
            own: {"bind": own, "mode": "rw"},
        },
        detach=True,
    )
    try:
        until(served.answers, seconds=60, what="chroma in a container answers")
        yield ContainedChroma(served, container)
    finally:
        container.remove(force=True)


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
        lambda d: d.change("DELETE FROM segments WHERE scope = 'VECTOR'"),
    ),
    Damage(
        "schema of a collection unreadable",
        "corrupted_metadata",
        lambda d: d.change("UPDATE collections SET schema_str = '{' WHERE name = 'docs'"),
    ),
)

DAMAGES = (*DATABASE_DAMAGES, *INDEX_DAMAGES, *COLLECTION_DAMAGES)

"""What the tests of repairs through a server's API alone share."""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from recovery.components.chromadb import index_files
from recovery.components.chromadb.editing import ChromaEditor
from recovery.components.chromadb.served_replacement import Replacement
from tests.chroma import ChromaDirectory, ServedChroma

SECONDS = 180.0

_fork = multiprocessing.get_context("fork")


def damaged(server: ServedChroma, damage: Callable[[ChromaDirectory], object]) -> None:
    """Broken on the disk while the server is down, as it shows after a restart."""
    server.stop()
    damage(server.directory)
    server.start()


def unlinked(directory: ChromaDirectory) -> None:
    """Every vector is where it was, and none leads to another one any more."""
    header = index_files.read_header(directory.segment)
    file = directory.segment / "data_level0.bin"
    content = bytearray(file.read_bytes())
    elements = np.frombuffer(content, dtype=index_files.element(header), count=header.elements)
    elements["links"] = 0
    file.write_bytes(content)


def names(editor: ChromaEditor) -> dict[str, str]:
    return {found["name"]: found["id"] for found in editor.all()}


def beside(editor: ChromaEditor, kind: str) -> list[str]:
    return [name for name in names(editor) if f".{kind}." in name]


def killed(act: Callable[[], object], moment: str) -> None:
    """In a process of its own, which gets SIGKILL once a collection was ``filled``, or is
    ``aside`` and its name nobody's."""
    with standing_still(act, moment) as process:
        process.kill()
        process.join()


@contextmanager
def standing_still(
    act: Callable[[], object], moment: str
) -> Iterator[multiprocessing.process.BaseProcess]:
    """A process of its own that has come to that moment, and goes on when the block ends."""
    # Not an event: to set one waits for all who wait for it, and one of them may be dead.
    reached, enough = _fork.Event(), _fork.Semaphore(0)
    rename, has = ChromaEditor.rename, Replacement.has

    def stand_still() -> None:
        reached.set()
        enough.acquire(timeout=600)

    def renamed(editor: ChromaEditor, identity: str, name: str) -> None:
        rename(editor, identity, name)
        if ".aside." in name:
            stand_still()

    def filled(replacement: Replacement, *said: Any) -> None:
        stand_still()
        has(replacement, *said)

    def run() -> None:
        # This process is nobody else's, so that nothing needs to be put back.
        if moment == "aside":
            ChromaEditor.rename = renamed  # type: ignore[method-assign]
        else:
            Replacement.has = filled  # type: ignore[method-assign]
        act()

    process = _fork.Process(target=run)
    process.start()
    try:
        assert reached.wait(240)
        yield process
        enough.release()
        process.join(240)
    finally:
        process.kill()
        process.join()

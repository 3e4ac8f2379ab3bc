"""An application that opens a Chroma directory itself: ``python -m`` this module, PATH.

Answers each line of its standard input with what it sees; ends with it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import chromadb
from chromadb.config import Settings

import recovery.client
from recovery.client.listener import LISTENER


def main() -> None:
    path = sys.argv[1]

    def open_client() -> Any:
        return chromadb.PersistentClient(path, settings=Settings(anonymized_telemetry=False))

    chroma = recovery.client.open_chroma(open_client, target="chromadb/local")
    docs = chroma.collection("docs")
    for line in sys.stdin:
        if line.strip() == "anew":
            with chroma.client() as client:
                client.delete_collection("docs")
                client.create_collection("docs").add(ids=["only"], embeddings=[[1.0] * 16])
        seen = {"count": docs.count(), "opened": chroma.opened, "hears": LISTENER.knowledge.age()}
        sys.stdout.write(f"{json.dumps(seen)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

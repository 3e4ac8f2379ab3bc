"""What tests have ChromaDB's own client do, always in a process of its own.

``python -m tests.chroma_child ACTION PATH [JSON]``; what it did is the last line that it prints.
"""

from __future__ import annotations

import json
import math
import random
import select
import sys
from collections.abc import Callable
from typing import Any

import chromadb
from chromadb.config import Settings

PAGE = 500


def say(what: dict[str, Any]) -> None:
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


def client(path: str) -> Any:
    return chromadb.PersistentClient(path, settings=Settings(anonymized_telemetry=False))


def vectors(count: int, dimension: int, seed: int = 7) -> list[list[float]]:
    drawn = random.Random(seed)
    return [[drawn.gauss(0, 1) for _ in range(dimension)] for _ in range(count)]


def build(path: str, said: dict[str, Any]) -> dict[str, Any]:
    """A collection past its sync threshold, one that is not, and one without a record."""
    opened = client(path)
    docs = opened.create_collection(
        "docs",
        metadata={"owner": "tests"},
        configuration={
            "hnsw": {"space": said["space"], "sync_threshold": said.get("threshold", 1000)}
        },
    )
    drawn = vectors(said["count"], said["dimension"])
    for first in range(0, len(drawn), PAGE):
        page = range(first, min(first + PAGE, len(drawn)))
        docs.add(
            ids=[f"id-{number}" for number in page],
            embeddings=[drawn[number] for number in page],
            documents=[f"document {number}" for number in page],
            metadatas=[{"number": number} for number in page],
        )
    notes = opened.create_collection("notes")
    notes.add(ids=["a", "b", "c"], embeddings=vectors(3, 8))
    opened.create_collection("empty")
    return {"docs": docs.count()}


def add_database(path: str, said: dict[str, Any]) -> dict[str, Any]:
    """A tenant and a database of their own, with one collection of three records."""
    settings = Settings(is_persistent=True, persist_directory=path, anonymized_telemetry=False)
    admin = chromadb.AdminClient(settings)
    admin.create_tenant(said["tenant"])
    admin.create_database(said["database"], said["tenant"])
    opened = chromadb.PersistentClient(path, Settings(anonymized_telemetry=False), **said)
    opened.create_collection("elsewhere").add(ids=["a", "b", "c"], embeddings=vectors(3, 8))
    return {"collections": len(opened.list_collections())}


def keep_adding(path: str, said: dict[str, Any]) -> dict[str, Any]:
    """An application that writes until its standard input is closed; fails where a write does."""
    docs = client(path).get_collection("docs")
    added = said["count"]
    while not select.select([sys.stdin], [], [], 0)[0]:
        drawn = vectors(said["batch"], said["dimension"], seed=added)
        names = [f"id-{added + number}" for number in range(said["batch"])]
        docs.add(ids=names, embeddings=drawn, documents=names)
        docs.delete(ids=names[:5])
        docs.query(query_embeddings=drawn[:1], n_results=10)
        added += said["batch"]
        say({"added": added})
    return {"records": docs.count()}


def add_one(path: str, said: dict[str, Any]) -> dict[str, Any]:
    docs = client(path).get_collection("docs")
    docs.add(
        ids=["late"],
        embeddings=vectors(1, said["dimension"], seed=1),
        documents=["late"],
        metadatas=[{"late": True, "n": 3}],
    )
    return {"docs": docs.count()}


def one(path: str, said: dict[str, Any]) -> dict[str, Any]:
    """All of one record."""
    docs = client(path).get_collection("docs")
    got = docs.get(ids=[said["name"]], include=["embeddings", "documents", "metadatas"])
    vectors = [[round(float(part), 5) for part in vector] for vector in got["embeddings"]]
    return {**{key: got[key] for key in ("ids", "documents", "metadatas")}, "vectors": vectors}


def delete(path: str, said: dict[str, Any]) -> dict[str, Any]:
    opened = client(path)
    opened.delete_collection(said["name"])
    return {"left": len(opened.list_collections())}


def add_saved(path: str, said: dict[str, Any]) -> dict[str, Any]:
    """A collection of 1,200 × 8, whose index was saved once."""
    settings = {"space": said.get("space", "l2"), "max_neighbors": said.get("max_neighbors", 16)}
    place = {key: said[key] for key in ("tenant", "database") if key in said}
    opened = chromadb.PersistentClient(path, Settings(anonymized_telemetry=False), **place)
    made = opened.create_collection(said["name"], configuration={"hnsw": settings})
    names = [f"id-{number}" for number in range(1_200)]
    made.add(ids=names, embeddings=vectors(1_200, 8, seed=5))
    return {"records": made.count()}


def add(path: str, said: dict[str, Any]) -> dict[str, Any]:
    """Records of ``docs``, with documents."""
    docs = client(path).get_collection("docs")
    drawn = vectors(len(said["ids"]), 16, seed=said["seed"])
    docs.add(ids=said["ids"], embeddings=drawn, documents=said["ids"])
    return {"records": docs.count()}


def update(path: str, said: dict[str, Any]) -> dict[str, Any]:
    """Other vectors for records of ``docs``; of those that are not there, none."""
    docs = client(path).get_collection("docs")
    docs.update(ids=said["ids"], embeddings=vectors(len(said["ids"]), 16, seed=said["seed"]))
    return {"records": docs.count()}


def remove(path: str, said: dict[str, Any]) -> dict[str, Any]:
    docs = client(path).get_collection("docs")
    docs.delete(ids=said["ids"])
    return {"records": docs.count()}


def right(path: str, said: dict[str, Any]) -> dict[str, Any]:
    """How many records of ``docs`` give the vector that they were given, in its direction."""
    docs = client(path).get_collection("docs")
    drawn = vectors(said["count"], said["dimension"])
    found = 0
    for offset in range(0, docs.count(), PAGE):
        try:
            got = docs.get(offset=offset, limit=PAGE, include=["embeddings"])
        except Exception:  # noqa: BLE001 - what cannot be read is not right
            continue
        for name, vector in zip(got["ids"], got["embeddings"], strict=True):
            given = drawn[int(name.removeprefix("id-"))]
            found += is_alike(vector.tolist(), given)
    return {"right": found}


def is_alike(one: list[float], other: list[float]) -> bool:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product > 0.999 * math.hypot(*one) * math.hypot(*other)


def contents(path: str, said: dict[str, Any]) -> dict[str, Any]:
    """Every collection with its settings and all of each record."""
    found = {}
    for collection in client(path).list_collections():
        got = collection.get(include=["embeddings", "documents", "metadatas", "uris"])
        rows = zip(got["embeddings"], got["documents"], got["metadatas"], got["uris"], strict=True)
        found[collection.name] = {
            "id": str(collection.id),
            "metadata": collection.metadata,
            "configuration": collection.configuration_json,
            "records": {
                name: [vector.tolist(), *rest]
                for name, (vector, *rest) in zip(got["ids"], rows, strict=True)
            },
        }
    return found


def query(path: str, said: dict[str, Any]) -> dict[str, Any]:
    """What an application sees of the collection ``docs``, each call by itself."""
    seen: dict[str, Any] = {}

    def attempt(name: str, call: Callable[[], Any]) -> Any:
        try:
            seen[name] = call()
        except Exception as error:  # noqa: BLE001 - whatever it is, the test wants to see it
            seen[name] = f"{type(error).__name__}: {error}"

    attempt("open", lambda: client(path).get_collection("docs").name)
    if seen["open"] != "docs":
        return seen
    docs = client(path).get_collection("docs")
    attempt("count", docs.count)
    attempt("get", lambda: len(docs.get(limit=20)["ids"]))
    attempt("embeddings", lambda: len(docs.get(limit=20, include=["embeddings"])["embeddings"]))
    wanted = vectors(said["count"], said["dimension"])[:1]
    say({**seen, "query": "died"})
    attempt("query", lambda: len(docs.query(query_embeddings=wanted, n_results=1500)["ids"][0]))
    return seen


if __name__ == "__main__":
    action, path, *rest = sys.argv[1:]
    actions = {
        "add": add,
        "add_database": add_database,
        "add_saved": add_saved,
        "add_one": add_one,
        "build": build,
        "contents": contents,
        "delete": delete,
        "keep_adding": keep_adding,
        "one": one,
        "query": query,
        "remove": remove,
        "right": right,
        "update": update,
    }
    say(actions[action](path, json.loads(rest[0]) if rest else {}))

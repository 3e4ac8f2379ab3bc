"""Vectors that the files of an index do not give: from a live server, or an embedding function."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recovery.components.chromadb import answers
from recovery.components.chromadb.findings import Budget
from recovery.components.chromadb.rebuilding import work
from recovery.components.chromadb.rebuilding.orders import MISSING, SUPPLEMENT, Damaged, EmbedOrder
from recovery.components.chromadb.target import ChromaTarget
from recovery.errors import EmbeddingUnavailable, RemedyError
from recovery.strategy import Journal

if TYPE_CHECKING:
    from recovery.components.chromadb.api import ChromaServer
    from recovery.components.chromadb.index_rebuild import IndexRebuild, Told

PAGE = 500
EVERYBODY = "*"


@dataclass(frozen=True, slots=True)
class Lacking:
    """One collection of which vectors are missing; ``place`` is where its index is built."""

    one: Damaged
    place: Path
    dimension: int | None

    def missing(self) -> list[str]:
        return [json.loads(line) for line in (self.place / MISSING).read_text().splitlines()]

    def write(self, names: list[str]) -> None:
        (self.place / MISSING).write_text("".join(f"{json.dumps(name)}\n" for name in names))


class Sources:
    """Where else the vectors of one collection may come from."""

    def __init__(
        self, target: ChromaTarget, parameters: IndexRebuild, journal: Journal, patience: float
    ) -> None:
        self._target = target
        self._parameters = parameters
        self._journal = journal
        self._patience = patience

    def fill(self, lacking: Lacking, told: Told) -> bool:
        """Write a supplement for what ``MISSING`` names; whether there is anything in it.

        Raises ``EmbeddingUnavailable`` where the policy names a function that cannot be used.
        """
        missing = lacking.missing()
        found = self._ask_server(lacking, missing)
        left = [one for one in missing if one not in found]
        if not left:
            return True
        lacking.write(left)
        return self._embed(lacking, told) or bool(found)

    def _ask_server(self, lacking: Lacking, missing: list[str]) -> set[str]:
        """A server that was not restarted still has in memory what its disk lost."""
        from recovery.components.chromadb.api import ChromaServer, Unanswered
        from recovery.components.chromadb.rebuilding.supplement import Supplement

        url = self._target.server
        if url is None or not lacking.dimension:
            return set()
        found: set[str] = set()
        budget = Budget(self._journal.remaining())
        try:
            with (
                ChromaServer(self._target, url, budget) as server,
                Supplement(lacking.place / SUPPLEMENT, lacking.dimension) as supplement,
            ):
                server.heartbeat()
                for start in range(0, len(missing), PAGE):
                    self._journal.remaining()
                    got = _vectors(server, lacking.one.id, missing[start : start + PAGE])
                    supplement.add(got["ids"], got["embeddings"])
                    found |= set(got["ids"])
        except (RemedyError, Unanswered, ValueError) as error:
            self._journal.note(
                f"{lacking.one.name}: the server has no more of them", why=str(error)[:200]
            )
        self._journal.note(
            f"{lacking.one.name}: vectors read from the running server", records=len(found)
        )
        return found

    def _embed(self, lacking: Lacking, told: Told) -> bool:
        functions = self._parameters.embedding_functions
        function = functions.get(lacking.one.name, functions.get(EVERYBODY))
        if function is None:
            return False
        wanted = self._parameters.embedding_environment
        environment = {key: os.environ[key] for key in wanted if key in os.environ}
        order = EmbedOrder(
            path=str(self._target.path),
            place=str(lacking.place),
            collection=lacking.one.id,
            segment=lacking.one.segment,
            function=function,
            timeout=work.deadline_of(self._journal.remaining),
            patience=self._patience,
        )
        said = work.run("embedding", order, self._journal.remaining, told, environment)
        if "unavailable" in said:
            raise EmbeddingUnavailable(f"{lacking.one.name}: {said['unavailable']}")
        self._journal.note(
            f"{lacking.one.name}: documents embedded anew",
            function=function,
            records=said["embedded"],
            compared=said["compared"],
            without_document=said["without_document"],
        )
        return bool(said["embedded"])


def _vectors(server: ChromaServer, identity: str, ids: list[str]) -> dict[str, list[Any]]:
    """Raises ``Unanswered``."""
    columns = ("embeddings",)
    got = server.of_collection(identity, "POST", "get", ids=ids, include=columns)
    return server.understood(lambda said: answers.records(said, columns, len(ids), asked=ids), got)

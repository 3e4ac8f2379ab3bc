"""What a Chroma server answers, checked before it is believed: types, shapes, sizes.

Whatever stands on the other end may answer anything. It raises ``NotUnderstood``, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from recovery.text import readable

LONGEST_TEXT = 1_000
MOST_RECORDS = 2**63 - 1


def _encodable(text: str) -> str:
    """JSON can hold halves of characters, which nothing can store or print."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("text that is none") from None
    return text


_Number = Annotated[float, Field(strict=True)]
_Text = Annotated[str, Field(strict=True), AfterValidator(_encodable)]
# Chroma's ids are UUIDs; this one becomes a part of an address.
_Identity = Annotated[str, Field(strict=True, pattern=r"^[0-9A-Za-z-]{1,64}$")]

T = TypeVar("T")


class NotUnderstood(ValueError):
    """The answer is none of ChromaDB's; the text says where, and quotes nothing of it."""


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class Listed(_Answer):
    """One collection as a listing names it."""

    id: _Identity
    name: _Text
    configuration_json: Any = None

    @property
    def space(self) -> str | None:
        """None where nothing says it in a way that is known here; it is no reason for an alarm."""
        for kind in ("hnsw", "spann"):
            found = _field(_field(self.configuration_json, kind), "space")
            if isinstance(found, str):
                return found
        return None


class _Page(_Answer):
    ids: list[_Text]
    embeddings: list[list[_Number | None] | None]


class _Hits(_Answer):
    ids: list[list[_Text]]
    distances: list[list[_Number | None]]


_LISTING = TypeAdapter(list[Listed])
_ONE = TypeAdapter(Listed)
_COUNT = TypeAdapter(Annotated[int, Field(strict=True, ge=0, le=MOST_RECORDS)])
_VERSION = TypeAdapter(Annotated[_Text, Field(max_length=100)])
_PAGE = TypeAdapter(_Page)
_HITS = TypeAdapter(_Hits)


def listing(said: object) -> list[Listed]:
    return _as(_LISTING, said, "a list of collections")


def one(said: object) -> Listed:
    return _as(_ONE, said, "a collection")


def count(said: object) -> int:
    return _as(_COUNT, said, "a count")


def version(said: object) -> str:
    return readable(_as(_VERSION, said, "a version"))


def page(said: object, limit: int) -> list[tuple[str, tuple[float, ...]]]:
    """A record that has no vector gets an empty one, and a number that JSON cannot say is nan."""
    got = _as(_PAGE, said, "records")
    _same_length(got.ids, got.embeddings, limit, "records")
    return [
        (name, tuple(map(_number, vector or ())))
        for name, vector in zip(got.ids, got.embeddings, strict=True)
    ]


def hits(said: object, limit: int) -> list[tuple[str, float]]:
    """The hits of a query for one vector."""
    got = _as(_HITS, said, "hits")
    _same_length(got.ids, got.distances, 1, "hits")
    if not got.ids:
        raise NotUnderstood("hits: none for the one query")
    names, distances = got.ids[0], got.distances[0]
    _same_length(names, distances, limit, "hits")
    return list(zip(names, map(_number, distances), strict=True))


def complaint(said: object) -> str:
    """What an error answer says, for people and for judging; empty where it says nothing."""
    parts = (_field(said, "error"), _field(said, "message"))
    if all(part is None for part in parts):
        return ""
    return readable(
        ": ".join(part[:LONGEST_TEXT] if isinstance(part, str) else "" for part in parts)
    )


def _as(kind: TypeAdapter[T], said: object, what: str) -> T:
    try:
        return kind.validate_python(said)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise NotUnderstood(f"{what}: {where + ': ' if where else ''}{first['msg']}") from None


def _same_length(one: Sequence[Any], other: Sequence[Any], most: int, what: str) -> None:
    if len(one) != len(other):
        raise NotUnderstood(f"{what}: {len(one)} ids and {len(other)} values")
    if len(one) > most:
        raise NotUnderstood(f"{what}: {len(one)}, where at most {most} were asked for")


def _number(said: float | None) -> float:
    return math.nan if said is None else said


def _field(said: object, name: str) -> Any:
    return said.get(name) if isinstance(said, dict) else None

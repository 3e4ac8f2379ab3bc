"""What a Chroma server answers, checked before it is believed: types, shapes, sizes.

Whatever stands on the other end may answer anything. It raises ``NotUnderstood``, and nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from typing import Annotated, Any, NotRequired, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from recovery.text import readable

LONGEST_TEXT = 1_000
MOST_RECORDS = 2**63 - 1
MOST_DIMENSIONS = 2**31 - 1

T = TypeVar("T")


def _encodable(text: str) -> str:
    """JSON can hold halves of characters, which nothing can store or print."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("text that is none") from None
    return text


def _sendable(said: T) -> T:
    """What is read here is sent to a server again, stored, and compared."""
    try:
        json.dumps(said, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise ValueError("what JSON cannot say") from None
    return said


_Number = Annotated[float, Field(strict=True)]
_Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Text = Annotated[str, Field(strict=True), AfterValidator(_encodable)]
# Chroma's ids are UUIDs; this one becomes a part of an address.
_Identity = Annotated[str, Field(strict=True, pattern=r"^[0-9A-Za-z-]{1,64}$")]

_Object = Annotated[dict[str, Any], AfterValidator(_sendable)]


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
        return space(self.configuration_json)


class Whole(TypedDict):
    """One collection with all that making another one like it takes."""

    __pydantic_config__ = ConfigDict(strict=True, extra="allow")  # type: ignore[misc]

    id: _Identity
    name: _Text
    metadata: NotRequired[_Object | None]
    configuration_json: NotRequired[_Object | None]
    schema: NotRequired[_Object | None]
    dimension: NotRequired[Annotated[int, Field(strict=True, ge=0, le=MOST_DIMENSIONS)] | None]


class _Page(_Answer):
    ids: list[_Text]
    embeddings: list[list[_Number | None] | None]


class _Hits(_Answer):
    ids: list[list[_Text]]
    distances: list[list[_Number | None]]


class _Records(_Answer):
    ids: list[_Text]
    embeddings: list[list[_Finite | None] | None] | None = None
    documents: list[_Text | None] | None = None
    metadatas: list[_Object | None] | None = None
    uris: list[_Text | None] | None = None


class _Heartbeat(_Answer):
    at: Annotated[int, Field(strict=True, ge=0, alias="nanosecond heartbeat")]


class _Limits(_Answer):
    max_batch_size: Annotated[int, Field(strict=True, ge=1)] | None = None


_LISTING = TypeAdapter(list[Listed])
_ONE = TypeAdapter(Listed)
_COUNT = TypeAdapter(Annotated[int, Field(strict=True, ge=0, le=MOST_RECORDS)])
_VERSION = TypeAdapter(Annotated[_Text, Field(max_length=100)])
_PAGE = TypeAdapter(_Page)
_HITS = TypeAdapter(_Hits)
_WHOLE = TypeAdapter(Whole)
_WHOLES = TypeAdapter(list[Whole])
_RECORDS = TypeAdapter(_Records)
_LIMITS = TypeAdapter(_Limits)
_HEARTBEAT = TypeAdapter(_Heartbeat)


def listing(said: object) -> list[Listed]:
    return _as(_LISTING, said, "a list of collections")


def one(said: object) -> Listed:
    return _as(_ONE, said, "a collection")


def wholes(said: object) -> list[Whole]:
    return _as(_WHOLES, said, "a list of collections")


def whole(said: object, name: str) -> Whole:
    """The collection of that name, and no other."""
    found = _as(_WHOLE, said, "a collection")
    if found["name"] != name:
        raise NotUnderstood("a collection: another one than was asked for")
    return found


def heartbeat(said: object) -> int:
    return _as(_HEARTBEAT, said, "a heartbeat").at


def batch_limit(said: object) -> int | None:
    """How many records one request may hold; None where the server does not say."""
    return _as(_LIMITS, said, "limits").max_batch_size


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


def records(
    said: object, columns: Sequence[str], limit: int, asked: Collection[str] | None = None
) -> dict[str, list[Any]]:
    """``ids`` and these columns, all of one length; of the ``asked`` ids alone, where some were."""
    got = _as(_RECORDS, said, "records")
    if len(set(got.ids)) != len(got.ids):
        raise NotUnderstood("records: one of them twice")
    if len(got.ids) > limit:
        raise NotUnderstood(f"records: {len(got.ids)}, where at most {limit} were asked for")
    if asked is not None and not set(got.ids) <= set(asked):
        raise NotUnderstood("records: others than were asked for")
    found: dict[str, list[Any]] = {"ids": got.ids}
    for column in columns:
        found[column] = getattr(got, column) or []
        _same_length(got.ids, found[column], limit, column)
    return found


def hits(said: object, limit: int) -> list[tuple[str, float]]:
    """The hits of a query for one vector."""
    got = _as(_HITS, said, "hits")
    _same_length(got.ids, got.distances, 1, "hits")
    if not got.ids:
        raise NotUnderstood("hits: none for the one query")
    names, distances = got.ids[0], got.distances[0]
    _same_length(names, distances, limit, "hits")
    return list(zip(names, map(_number, distances), strict=True))


def space(settings: object) -> str | None:
    """None where nothing says it in a way that is known here; it is no reason for an alarm."""
    found = index_settings(settings).get("space")
    return found if isinstance(found, str) else None


def index_settings(settings: object) -> dict[str, Any]:
    """Of the one index that a collection has; nothing where they are of a form not known here."""
    for kind in ("hnsw", "spann"):
        found = _field(settings, kind)
        if isinstance(found, dict) and found:
            return found
    return {}


def embedding_function(settings: object) -> dict[str, Any]:
    """What is recorded of it; nothing where that is of another form than is known here."""
    found = _field(settings, "embedding_function")
    return found if isinstance(found, dict) else {}


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

"""When a key counts as corrupted: what the policy declares of a keyspace, and who breaks it."""

from __future__ import annotations

import json
from typing import Literal, Self

from pydantic import Field, model_validator

from recovery.strategy import StrictModel

Kind = Literal["string", "hash", "list", "set", "zset", "stream"]
Encoding = Literal["json", "msgpack", "length"]


class KeyPattern(StrictModel):
    """What holds for every healthy key of one keyspace; a key that breaks any of it is corrupted.

    ``pattern`` is a glob as SCAN takes it. ``no_ttl``: a key without a TTL is corrupted. ``type``:
    so is one of another type. ``decodes_as`` and the lengths, in bytes, speak of strings: a value
    that is no JSON or no MessagePack, or not ``length`` bytes long, or not between ``min`` and
    ``max``, is corrupted.
    """

    pattern: str = Field(min_length=1, max_length=512)
    no_ttl: bool = False
    type: Kind | None = None
    decodes_as: Encoding | None = None
    length: int | None = Field(default=None, ge=0)
    min: int | None = Field(default=None, ge=0)
    max: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not (self.no_ttl or self.kind):
            raise ValueError("declares nothing: say no_ttl, type, decodes_as or a length")
        if self.decodes_as == "length" and not self._is_sized:
            raise ValueError("decodes_as length needs length, min or max")
        if self.kind != "string" and self._speaks_of_strings:
            raise ValueError(f"decodes_as and lengths speak of strings, not of a {self.type}")
        if self.length is not None and not (self.min is None and self.max is None):
            raise ValueError("length is one number; min and max are a range: say one of both")
        if (self.shortest or 0) > (self.longest if self.longest is not None else float("inf")):
            raise ValueError("min is above max")
        return self

    @property
    def kind(self) -> Kind | None:
        """The type that a healthy key has, where one is declared or follows from the rest."""
        return self.type or ("string" if self._speaks_of_strings else None)

    @property
    def shortest(self) -> int | None:
        return self.min if self.length is None else self.length

    @property
    def longest(self) -> int | None:
        return self.max if self.length is None else self.length

    @property
    def reads_values(self) -> bool:
        return self.decodes_as in ("json", "msgpack")

    @property
    def _is_sized(self) -> bool:
        return any(bound is not None for bound in (self.length, self.min, self.max))

    @property
    def _speaks_of_strings(self) -> bool:
        return self.decodes_as is not None or self._is_sized

    def decodes(self, value: bytes) -> bool:
        """Whether a value is what it must be; a doubtful one is."""
        return _is_json(value) if self.decodes_as == "json" else _is_msgpack(value)


def _is_json(value: bytes) -> bool:
    try:
        json.loads(value.decode())
    except RecursionError:
        # Deeper than we can follow proves nothing.
        return True
    except ValueError:
        return False
    return True


def _is_msgpack(value: bytes) -> bool:
    import msgpack

    try:
        msgpack.unpackb(value, raw=True, strict_map_key=False)
    except msgpack.StackError:
        return True
    except (msgpack.UnpackException, ValueError):
        return False
    return True

"""What Alertmanager's webhook says, checked at the door. Alone here its spelling is known.

Fields that nobody asks for are passed over, because a later Alertmanager may well say more; each
alert is checked by itself, so that one that is wrong costs the others nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from recovery.errors import InvalidEvent

VERSION = "4"

_LABEL_BYTES = 4096

Label = Annotated[str, StringConstraints(max_length=_LABEL_BYTES)]


class _Lenient(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Alert(_Lenient):
    """One alert; ``starts_at`` says which of its lives is meant."""

    status: Literal["firing", "resolved"]
    labels: dict[Label, Label] = Field(max_length=100)
    starts_at: AwareDatetime = Field(alias="startsAt")
    given_fingerprint: str | None = Field(default=None, alias="fingerprint")

    @property
    def is_firing(self) -> bool:
        return self.status == "firing"

    @property
    def name(self) -> str:
        return self.labels.get("alertname", "")

    @property
    def starts_ms(self) -> int:
        return max(int(self.starts_at.timestamp() * 1000), 1)

    @property
    def fingerprint(self) -> str:
        """Alertmanager's own where it has the right form, else one of the labels."""
        given = self.given_fingerprint or ""
        if given.isalnum() and given.isascii() and len(given) <= 64:  # noqa: PLR2004
            return given
        text = json.dumps(sorted(self.labels.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Message(_Lenient):
    """The envelope; its alerts are not checked yet."""

    version: str
    alerts: list[Any]
    truncated: int = Field(default=0, ge=0, alias="truncatedAlerts")


def read_message(payload: Mapping[str, Any]) -> Message:
    """Raises ``InvalidEvent`` where it is no message of Alertmanager's webhook."""
    try:
        message = Message.model_validate(payload)
    except ValidationError as error:
        raise InvalidEvent(f"not a message of Alertmanager: {explain(error)}") from error
    if message.version != VERSION:
        raise InvalidEvent(
            f"Alertmanager's webhook in version {message.version[:20]!r} is not understood",
            {"field": "version", "allowed": [VERSION]},
        )
    return message


def explain(error: ValidationError) -> str:
    """The first problem. Values stay out: a stray one may be a secret."""
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part)[:80] for part in problem["loc"])
    return f"{where}: {problem['msg']}" if where else problem["msg"]

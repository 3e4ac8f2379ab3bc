"""A token: its shape and when it runs out; and an account by a name that hides whose it is."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from recovery.routes import TokenKind

LONGEST = 16 * 1024
END_OF_TIME = 253_402_300_800.0
"""The year 10000: a moment after it is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """``expires`` in epoch seconds; None where it never does, or nobody knows."""

    text: str = field(repr=False)
    kind: TokenKind
    expires: float | None = None

    def seconds_left(self) -> float | None:
        return None if self.expires is None else self.expires - time.time()


def from_sign_in(body: Any) -> Token:
    """Raises ``ValueError`` where the answer holds no token that could be sent in a header."""
    text = body.get("token") if isinstance(body, dict) else None
    if not is_sendable(text):
        raise ValueError("the sign-in's answer holds no usable token")
    expires = moment(body.get("expires_at"))
    return Token(text=text, kind=TokenKind.JWT, expires=expires or moment(_claim(text, "exp")))


def is_sendable(text: Any) -> TypeGuard[str]:
    """Whether it can stand in a header."""
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST:
        return False
    return text.isascii() and text.isprintable() and " " not in text


def moment(said: Any) -> float | None:
    """Epoch seconds, where that is what it is."""
    if isinstance(said, bool) or not isinstance(said, int | float):
        return None
    return float(said) if 0 < said < END_OF_TIME else None


def lifetime(token: Token) -> float | None:
    """Seconds from its making to its end, where it says when it was made."""
    made = moment(_claim(token.text, "iat"))
    if made is None or token.expires is None:
        return None
    return max(token.expires - made, 0.0)


def account(base_url: str, email: str) -> str:
    """One name for an account on every host, which tells nobody whose it is."""
    return hashlib.sha256(f"{base_url}\n{email.lower()}".encode()).hexdigest()[:16]


def _claim(token: str, name: str) -> Any:
    """Read, not verified: only the server can say whether a token is good."""
    try:
        middle = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    except (IndexError, ValueError, RecursionError):
        return None
    return claims.get(name) if isinstance(claims, dict) else None

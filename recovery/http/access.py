"""Who may do what: tokens, sessions of the status page, and guesses that are counted.

A token is compared by its digest, in constant time. Whoever guesses is not answered any more for
a while, even where the next guess is right.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING

from recovery.http.pace import Pace

if TYPE_CHECKING:
    from recovery.http.settings import Settings

COOKIE = "recovery_session"
SESSION_SECONDS = 12 * 3600
GUESSES_A_MINUTE = 10
LONGEST_NAME = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whoever asks. ``name`` is known where a person signed in."""

    may_read: bool = False
    may_write: bool = False
    name: str | None = None
    by_cookie: bool = False


NOBODY = Caller()


@dataclass(frozen=True, slots=True)
class TooManyGuesses:
    retry_after: float


class Door:
    """Knows the tokens' digests, never the tokens, and recognises callers."""

    def __init__(self, settings: Settings) -> None:
        self._write = _digest(settings.token)
        self._read = _digest(settings.read_token) if settings.read_token else None
        self._key = hmac.digest(self._write, b"session" + (self._read or b""), "sha256")
        self._is_open_for_reading = not settings.is_exposed
        self._guesses = Pace(GUESSES_A_MINUTE / 60, GUESSES_A_MINUTE)

    def recognise(
        self, client: str, authorization: str | None, cookie: str | None
    ) -> Caller | TooManyGuesses:
        """What the headers of a request allow; a wrong token is a guess."""
        if authorization is not None:
            kind, _, token = authorization.partition(" ")
            return self.try_token(client, token.strip() if kind.lower() == "bearer" else "")
        session = self._session(cookie) if cookie else None
        if session is not None:
            return session
        return Caller(may_read=self._is_open_for_reading)

    def try_token(self, client: str, token: str) -> Caller | TooManyGuesses:
        """Costs nothing where it is right."""
        wait = self._guesses.wait(client)
        if wait > 0:
            return TooManyGuesses(wait)
        given = _digest(token)
        is_write = hmac.compare_digest(given, self._write)
        is_read = self._read is not None and hmac.compare_digest(given, self._read)
        if is_write or is_read:
            return Caller(may_read=True, may_write=is_write)
        self._guesses.take(client)
        return NOBODY

    def open_session(self, caller: Caller, name: str) -> str:
        """The cookie of somebody who has shown a token; it ends when the token is changed."""
        said = {
            "n": name[:LONGEST_NAME],
            "w": caller.may_write,
            "e": int(time.time()) + SESSION_SECONDS,
        }
        text = base64.urlsafe_b64encode(json.dumps(said).encode())
        return f"{text.decode()}.{self._sign(text)}"

    def _session(self, cookie: str) -> Caller | None:
        try:
            jar = SimpleCookie(cookie)
        except CookieError:
            return None
        text, _, signature = jar[COOKIE].value.partition(".") if COOKIE in jar else ("", "", "")
        try:
            signed = self._sign(text.encode("ascii"))
            is_ours = hmac.compare_digest(signature.encode("ascii"), signed.encode())
        except UnicodeEncodeError:
            return None
        if not is_ours:
            return None
        said = json.loads(base64.urlsafe_b64decode(text))
        if said["e"] < time.time():
            return None
        return Caller(may_read=True, may_write=said["w"], name=said["n"], by_cookie=True)

    def _sign(self, text: bytes) -> str:
        return hmac.new(self._key, text, "sha256").hexdigest()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()

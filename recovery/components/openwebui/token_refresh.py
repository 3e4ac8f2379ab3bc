"""``openwebui.token_refresh``: sign in again, prove the new token, hand it to applications.

One host at a time: the limiter of sign-ins locks out the right password as well as a wrong one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recovery import encryption
from recovery.components.openwebui import tokens
from recovery.components.openwebui.api import OpenWebui, SignInLimited, SignInRefused
from recovery.components.openwebui.findings import Unanswered
from recovery.components.openwebui.known import own_key, seconds_until_refresh, stored_token
from recovery.components.openwebui.standing import as_the_policy_says
from recovery.components.openwebui.target import OpenWebuiTarget
from recovery.components.openwebui.tokens import Token
from recovery.credentials import reveal
from recovery.errors import (
    ConfigError,
    CredentialsRefused,
    MemoryAway,
    NotConfigured,
    RemedyError,
    SignInsLimited,
    TargetRefused,
    Unreadable,
)
from recovery.routes import TokenKind
from recovery.strategy import Journal, Memory, Parameters, strategy

NOTICE = "token_refreshed"
LOCK_SECONDS = 15.0
"""How long whoever signs in may be silent; then its process is taken for dead."""

FIRST_WAIT, LONGEST_WAIT = 45.0, 180.0
"""The limiter's window is 180 s, and nobody but us may have filled it."""

REFUSED_SECONDS = 3600.0
"""How long credentials that were refused are not tried again, unless they change."""

_PAUSE = 0.1


@strategy(
    component="openwebui",
    summary="Sign in again, prove the new token and hand it to applications.",
    timeout_seconds=10.0,
    max_retries=2,
)
def token_refresh(
    target: OpenWebuiTarget,
    parameters: Parameters,  # noqa: ARG001 - it has none
    journal: Journal,
) -> None:
    """Raises ``CredentialsRefused`` where only a person helps, and ``SignInsLimited``."""
    memory = target.memory
    if memory is None:
        raise MemoryAway("a token is kept in the control plane, which nobody asked")
    if not (target.has_password or target.has_api_key):
        raise NotConfigured("no email and password, and no api_key", {"key": "password"})
    with _named_errors():
        if target.has_api_key:
            _hand_over(target, memory, _proven_key(target, journal), journal)
        else:
            _sign_in_alone(target, memory, journal)


def _proven_key(target: OpenWebuiTarget, journal: Journal) -> Token:
    key = own_key(target)
    try:
        _prove(target, key, journal)
    except Unanswered as error:
        if error.finding.failure_type == "auth_failure":
            raise CredentialsRefused(error.finding.summary) from None
        raise
    return key


def _sign_in_alone(target: OpenWebuiTarget, memory: Memory, journal: Journal) -> None:
    account = tokens.account(target.base_url, target.email or "")
    # A recovery that is resumed elsewhere goes on with what it holds: its lease says who runs it.
    name, own = f"sign_in:{account}", journal.recovery_id
    while not memory.hold(name, own, LOCK_SECONDS) and memory.held(name) != own:
        journal.remaining()
        time.sleep(_PAUSE)
    try:
        if _somebody_did(target, memory, journal):
            return
        token = _sign_in(target, memory, journal, account)
        if token is not None:
            _hand_over(target, memory, token, journal)
    finally:
        memory.drop(name, own)


def _somebody_did(target: OpenWebuiTarget, memory: Memory, journal: Journal) -> bool:
    """Whether the stored token works and will for a while: there is nothing to sign in for."""
    try:
        token = stored_token(memory.route())
    except Unreadable as error:
        journal.note("the stored token is replaced", why=error.message)
        return False
    if token is None or token.kind is not TokenKind.JWT:
        return False
    due = seconds_until_refresh(target, token)
    if due is not None and due <= 0:
        return False
    try:
        with OpenWebui(target, journal.remaining(), token.text) as webui:
            webui.session()
    except Unanswered as error:
        if error.finding.failure_type != "auth_failure":
            raise
        return False
    journal.note("the stored token works: another host has renewed it")
    return True


def _sign_in(
    target: OpenWebuiTarget, memory: Memory, journal: Journal, account: str
) -> Token | None:
    """None in a rehearsal."""
    password = reveal(target.password, target.password_file) or ""
    credentials = encryption.fingerprint(f"{target.email}\n{password}")
    if memory.held(f"refused:{account}") == credentials:
        raise CredentialsRefused(
            "e-mail or password were refused, and have not changed since: not tried again"
        )
    if (waits := memory.held(f"limited:{account}")) is not None:
        raise SignInsLimited(
            f"{target.base_url} limits the sign-ins of this account: waiting for at most {waits} s",
            {"retry_after": float(waits)},
        )

    def sign_in() -> Token:
        with OpenWebui(target, journal.remaining()) as webui:
            return webui.sign_in(target.email or "", password)

    try:
        token = journal.change("signed in", sign_in, path=target.login_path)
    except SignInRefused as error:
        memory.drop(f"refused:{account}", memory.held(f"refused:{account}") or "")
        memory.hold(f"refused:{account}", credentials, REFUSED_SECONDS)
        raise CredentialsRefused(str(error)) from None
    except SignInLimited as error:
        wait = _back_off(memory, account)
        raise SignInsLimited(f"{error}; again in {wait:g} s", {"retry_after": wait}) from None
    if token is not None:
        _prove(target, token, journal)
    return token


def _back_off(memory: Memory, account: str) -> float:
    """Longer each time, until the limiter has been quiet for as long as its window is."""
    before = memory.held(f"waited:{account}")
    wait = min(2 * float(before), LONGEST_WAIT) if before else FIRST_WAIT
    memory.hold(f"limited:{account}", f"{wait:g}", wait)
    memory.drop(f"waited:{account}", before or "")
    memory.hold(f"waited:{account}", f"{wait:g}", wait + LONGEST_WAIT)
    return wait


def _prove(target: OpenWebuiTarget, token: Token, journal: Journal) -> None:
    """An authenticated call; raises ``Unanswered``."""
    with OpenWebui(target, journal.remaining(), token.text) as webui:
        if token.kind is TokenKind.JWT:
            webui.session()
        # API keys have no session; what they are for, they may do.
        listed = len(webui.models(refresh=False))
    journal.note("the token is good", models=listed)


def _hand_over(target: OpenWebuiTarget, memory: Memory, token: Token, journal: Journal) -> None:
    facts: dict[str, Any] = {
        **as_the_policy_says(target, memory.route()),
        "token": encryption.encrypt(token.text),
        "token_kind": token.kind.value,
        "token_expires": token.expires,
    }
    left = token.seconds_left()
    journal.change(
        "stored the token, and told applications",
        lambda: memory.reroute(**facts),
        kind=token.kind.value,
        seconds=None if left is None else round(left),
    )


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except Unanswered as error:
        raise error.finding.as_error() from None
    except ConfigError as error:
        raise NotConfigured(error.message, {"key": encryption.VARIABLE}) from None
    except Unreadable as error:
        raise RemedyError(error.message) from None
    except CredentialsRefused:
        raise
    except TargetRefused as error:
        # A key that is refused, or a file that cannot be read: no later attempt will do better.
        raise CredentialsRefused(error.message) from None

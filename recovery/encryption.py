"""Encrypts what must not be readable in the control plane; the keys never leave the environment.

``RECOVERY_SECRET_KEY``, or the file that ``RECOVERY_SECRET_KEY_FILE`` names, holds one or more
Fernet keys, separated by commas: the first encrypts, each decrypts. Read at each use, so that a
rotated file holds from then on. Workers and applications need the same ones.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recovery.environment import secret
from recovery.errors import ConfigError, Unreadable

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

VARIABLE = "RECOVERY_SECRET_KEY"
HOW_TO = "make one with `recovery config secret-key`"


def new_key() -> str:
    return str(_fernet().Fernet.generate_key().decode())


def encrypt(text: str, environ: Mapping[str, str] | None = None) -> str:
    """Raises ``ConfigError`` where there is no usable key."""
    return str(_keys(environ).encrypt(text.encode()).decode())


def decrypt(encrypted: str, environ: Mapping[str, str] | None = None) -> str:
    """Raises ``ConfigError``, and ``Unreadable`` where none of the keys encrypted it."""
    keys = _keys(environ)
    try:
        return str(keys.decrypt(encrypted.encode()).decode())
    except _fernet().InvalidToken:
        raise Unreadable(f"no key in {VARIABLE} decrypts what is stored") from None


def rotated(encrypted: str, environ: Mapping[str, str] | None = None) -> str | None:
    """The same encrypted by the first key; ``None`` where it is already. Raises as ``decrypt``."""
    keys = _keys(environ)
    newest = keys._fernets[0]  # noqa: SLF001 - MultiFernet has no way to ask for one
    try:
        newest.decrypt(encrypted.encode())
    except _fernet().InvalidToken:
        return encrypt(decrypt(encrypted, environ), environ)
    return None


def fingerprint(text: str, environ: Mapping[str, str] | None = None) -> str:
    """The same for the same text and first key; tells nobody without the key anything."""
    first = (secret(VARIABLE, environ) or "").split(",")[0].strip()
    _keys(environ)
    return hmac.digest(first.encode(), text.encode(), "sha256").hex()[:32]


def _keys(environ: Mapping[str, str] | None) -> MultiFernet:
    fernet = _fernet()
    given = [key.strip() for key in (secret(VARIABLE, environ) or "").split(",") if key.strip()]
    if not given:
        raise ConfigError(f"{VARIABLE} or {VARIABLE}_FILE must be set: {HOW_TO}")
    usable = []
    for place, key in enumerate(given, 1):
        try:
            usable.append(fernet.Fernet(key))
        except ValueError:
            raise ConfigError(f"{VARIABLE}: key {place} is no Fernet key: {HOW_TO}") from None
    return fernet.MultiFernet(usable)  # type: ignore[no-any-return]


def _fernet() -> Any:
    """``cryptography`` only where something is encrypted: most processes never need it."""
    try:
        from cryptography import fernet
    except ImportError as error:
        raise ConfigError("encryption needs the package cryptography") from error
    return fernet

"""Secrets of targets: in the policy as ``${ENV}``, or in a file that is read when it is needed."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from pydantic import SecretStr

from recovery.errors import SetupError, TargetRefused

MAX_BYTES = 64 * 1024


def one_of(name: str, secret: SecretStr | None, file: Path | None) -> None:
    """Raises ``ValueError`` where a secret is given in both ways."""
    if secret is not None and file is not None:
        raise ValueError(f"give {name} or {name}_file, not both")


def reveal(secret: SecretStr | None, file: Path | None) -> str | None:
    """The secret itself, without the newline that editors leave; raises ``TargetRefused``.

    A file is read each time: it may exist only on the host that needs it, and a rotated secret
    holds from its next use on.
    """
    if file is None:
        return secret.get_secret_value() if secret is not None else None
    try:
        with file.open("rb") as source:
            content = source.read(MAX_BYTES).decode().strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise TargetRefused(f"the secret in {file} cannot be read: {reason}") from error
    if not content:
        raise TargetRefused(f"the secret in {file} cannot be read: it is empty")
    return content


def make_once(file: Path) -> str:
    """A secret for this machine's own user, made once and kept; raises ``SetupError``."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return file.read_text().strip()
        with os.fdopen(descriptor, "w") as sink:
            secret = secrets.token_urlsafe(32)
            sink.write(f"{secret}\n")
            return secret
    except OSError as error:
        raise SetupError(f"cannot keep a secret in {file}: {error.strerror}") from error


def named(variable: str) -> str | None:
    """A secret by the name of its environment variable; an empty one is none."""
    return os.environ.get(variable, "").strip("\r\n") or None


def for_header(secret: str | None, what: str) -> str | None:
    """The secret as it is, where a header may hold it; raises ``TargetRefused``.

    A client that finds out by itself says so with the secret in its sentence.
    """
    if secret is not None and not (secret.isascii() and secret.isprintable()):
        raise TargetRefused(f"{what} cannot stand in a header: is there more than it in its place?")
    return secret

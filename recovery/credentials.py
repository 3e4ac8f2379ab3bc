"""Secrets of targets: in the policy as ``${ENV}``, or in a file that is read when it is needed."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import SecretStr

from recovery.errors import TargetRefused

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


def named(variable: str) -> str | None:
    """A secret by the name of its environment variable; an empty one is none."""
    return os.environ.get(variable) or None

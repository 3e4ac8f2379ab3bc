"""Programs run for a moment: argument lists, no shell, a deadline, nothing of our own secrets."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recovery.errors import RuntimeUnavailable
from recovery.runtime.process import Remaining

_OURS = ("RECOVERY_", "CELERY_")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended, and what it wrote."""

    code: int
    output: str
    errors: str

    @property
    def is_good(self) -> bool:
        return self.code == 0

    @property
    def complaint(self) -> str:
        """The last line of what went wrong, for a person."""
        lines = self.errors.strip().splitlines()
        return lines[-1][:200] if lines else f"exit code {self.code}"


def run(
    arguments: Sequence[str],
    remaining: Remaining,
    *,
    listen: bool = False,
    environ: Mapping[str, str] | None = None,
) -> Ended:
    """Raises ``RuntimeUnavailable`` where it cannot be run or does not end in time.

    ``environ`` is added to what every program gets. Only with ``listen`` is what it writes read:
    something that it leaves in the background may hold its output open.
    """
    sink = subprocess.PIPE if listen else subprocess.DEVNULL
    try:
        done = subprocess.run(
            list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            text=True,
            errors="replace",
            timeout=remaining(),
            env={**environment(), **(environ or {})},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeUnavailable(f"{arguments[0]} did not end in time") from error
    except OSError as error:
        raise RuntimeUnavailable(f"{arguments[0]} cannot be run: {error.strerror}") from error
    return Ended(done.returncode, done.stdout or "", done.stderr or "")


def environment() -> dict[str, str]:
    """What a program of the user gets: the worker's own settings hold passwords."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}

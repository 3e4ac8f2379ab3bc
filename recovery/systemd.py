"""What a service tells systemd: a datagram on the socket that it names; elsewhere nothing."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Self

import structlog

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class ServiceManager:
    """``address``: systemd's socket. ``watchdog_seconds``: how long it bears our silence."""

    address: str | None = None
    watchdog_seconds: float | None = None
    _next_beat: float = field(default=0.0, init=False)

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] | None = None) -> Self:
        """Takes the variables out, so that no child speaks in our name."""
        found = os.environ if environ is None else environ
        address = found.pop("NOTIFY_SOCKET", None)
        period, owner = found.pop("WATCHDOG_USEC", None), found.pop("WATCHDOG_PID", None)
        is_ours = owner is None or owner == str(os.getpid())
        return cls(
            address=address,
            watchdog_seconds=int(period) / 1_000_000 if period and is_ours else None,
        )

    def tell(self, *facts: str) -> None:
        """Facts as sd_notify(3) names them, such as ``READY=1``."""
        if self.address is None:
            return
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(1.0)
            try:
                sender.sendto("\n".join(facts).encode(), address)
            except OSError as error:
                log.warning("systemd not told", error=str(error))

    def beat(self) -> None:
        """To be called often: tells the watchdog, twice a period, that we are alive."""
        now = time.monotonic()
        if self.watchdog_seconds is not None and now >= self._next_beat:
            self._next_beat = now + self.watchdog_seconds / 2
            self.tell("WATCHDOG=1")

"""How often each client may do something: a bucket of tokens a client, for so many clients."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

MOST_CLIENTS = 4096


class Pace:
    """``rate`` times a second, and ``burst`` at once. Clients beyond the newest are forgotten."""

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> float:
        """Seconds until the client may do it again; 0 where it may now."""
        left = self._now(client_of(client))[0]
        return 0.0 if left >= 1 else (1 - left) / self._rate

    def take(self, client: str) -> float:
        """Do it where it is allowed; else the seconds to wait."""
        key = client_of(client)
        left, at = self._now(key)
        allowed = left >= 1
        self._left[key] = (left - 1 if allowed else left, at)
        self._left.move_to_end(key)
        while len(self._left) > MOST_CLIENTS:
            self._left.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self._rate

    def _now(self, key: str) -> tuple[float, float]:
        now = self._clock()
        left, at = self._left.get(key, (self._burst, now))
        return min(left + (now - at) * self._rate, self._burst), now


def client_of(address: str) -> str:
    """Whoever has an IPv6 network has all of its 2⁶⁴ addresses."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(found), 64), strict=False))
    return address

"""Names to addresses with an end: the system's resolver may take half a minute, and hears nobody.

One look-up of a name at a time: while it hangs, whoever asks again waits for the same one, each for
as long as its own time lasts. Threads that hang are daemons and end with the resolver.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import threading


class _LookUp(threading.Thread):
    def __init__(self, name: str) -> None:
        super().__init__(name=f"resolves {name}", daemon=True)
        self._asked = name
        self.found: list[str] = []
        self.error: OSError | None = None

    def run(self) -> None:
        try:
            answers = socket.getaddrinfo(self._asked, None, type=socket.SOCK_STREAM)
            self.found = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
        except OSError as error:
            self.error = error
        except UnicodeError as error:
            self.error = OSError(f"{self._asked[:80]!r} is no name: {error}")
        finally:
            with _looking:
                _under_way.pop(self._asked, None)


_under_way: dict[str, _LookUp] = {}
_looking = threading.Lock()


def addresses(name: str, seconds: float | None) -> list[str]:
    """What a name stands for; raises ``TimeoutError``, and ``OSError`` where it stands for none."""
    try:
        return [str(ipaddress.ip_address(name))]
    except ValueError:
        pass
    with _looking:
        look_up = _under_way.get(name)
        if look_up is None:
            look_up = _under_way[name] = _LookUp(name)
            look_up.start()
    look_up.join(seconds)
    if look_up.is_alive():
        raise TimeoutError(f"the resolver says nothing of {name}")
    if look_up.error is not None:
        raise OSError(*look_up.error.args)
    return look_up.found


def _forget() -> None:
    """In a forked child the parent's threads are not there, and its lock may be held for ever."""
    global _looking  # noqa: PLW0603
    _under_way.clear()
    _looking = threading.Lock()


os.register_at_fork(after_in_child=_forget)

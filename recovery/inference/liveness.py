"""Whether anybody is there while an answer is waited for: tells a slow model from a dead server."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

LOOK_AFTER = 1.0
"""Of silence, before anybody asks."""

LOOK_TIMEOUT = 1.25
LOOKS = 2
"""One that is not answered may only have found a busy moment."""


def shows_life(response: httpx.Response) -> bool:
    """A page with status 200 is what a proxy, or a wrong address, would answer."""
    try:
        told = json.loads(response.content)
    except (ValueError, RecursionError):
        return False
    return response.status_code == HTTPStatus.OK and isinstance(told, dict)

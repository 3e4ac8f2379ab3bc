"""Renews a token before it ends, outside of any recovery: nothing is broken, so nothing is counted.

What fails here only waits: the probe sees a token that nobody renewed, and then it is a failure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import structlog

from recovery.components.openwebui.known import known, seconds_until_refresh
from recovery.components.openwebui.target import OpenWebuiTarget
from recovery.components.openwebui.token_refresh import token_refresh
from recovery.diary import Diary
from recovery.errors import RemedyError
from recovery.routes import TokenKind
from recovery.strategy import Parameters, Scope

if TYPE_CHECKING:
    from recovery.controlplane import ControlPlane

SECONDS = 10.0

log = structlog.get_logger()


def renew(control: ControlPlane, target: OpenWebuiTarget) -> bool:
    """Whether the stored token was due and is renewed; raises ``ControlPlaneUnavailable``."""
    if target.memory is None or not target.has_password:
        return False
    token = known(target, target.memory).token
    if token is None or token.kind is not TokenKind.JWT:
        return False
    due, left = seconds_until_refresh(target, token), token.seconds_left()
    if due is None or left is None or due > 0 or left <= 0:
        return False
    return _sign_in(control, target)


def _sign_in(control: ControlPlane, target: OpenWebuiTarget) -> bool:
    if token_refresh.remedy is None:
        return False
    try:
        token_refresh.remedy(
            target, Parameters(), Diary(f"upkeep:{uuid4()}", Scope(), SECONDS, control.prefix)
        )
    except RemedyError as error:
        log.warning("a token could not be renewed yet", target=target.base_url, why=error.message)
        return False
    return True

"""``/alerts``: Alertmanager's webhook."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends

from recovery import alertmanager
from recovery.http import models
from recovery.http.context import Context, context_of

router = APIRouter(tags=["alerts"])


@router.post(
    "/alerts", responses={code: {"model": models.Failed} for code in (401, 413, 422, 429, 503)}
)
def receive(
    context: Annotated[Context, Depends(context_of)], payload: Annotated[dict[str, Any], Body()]
) -> models.AlertReceipt:
    """Take in one message of Alertmanager (version 4).

    What it means is the policy's to say. 503 has Alertmanager send it again.
    """
    receipt = alertmanager.receive(context.control, context.policy, payload, app=context.app)
    return models.AlertReceipt.model_validate(receipt.as_dict())

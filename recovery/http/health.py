"""Routes for machines that watch: ``/healthz``, ``/readyz``, ``/metrics``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from recovery.errors import ControlPlaneUnavailable
from recovery.http import answers, exposition
from recovery.http.context import Context, caller_of, context_of
from recovery.http.models import Alive, Failed, Readiness
from recovery.http.standing import readiness

router = APIRouter(tags=["health"])

In = Annotated[Context, Depends(context_of)]


@router.get("/healthz")
async def healthz() -> Alive:
    """Whether this process serves. It asks nobody, so that it answers whatever is away."""
    return Alive(status="ok")


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
def readyz(request: Request, context: In) -> Response:
    """Whether every target works, by the last probe and by what recoveries left behind.

    Whoever has no token where one is needed to read learns the answer and no names.
    """
    try:
        found = readiness(context.measured(), context.policy)
    except ControlPlaneUnavailable:
        found = Readiness(ready=False, control_plane=False, components={})
    shown = found if caller_of(request).may_read else found.model_copy(update={"components": {}})
    headers = None if found.control_plane else {"retry-after": str(answers.RETRY_SECONDS)}
    return JSONResponse(shown.model_dump(mode="json"), 200 if found.ready else 503, headers)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, 404: {"model": Failed}},
)
def metrics(request: Request, context: In) -> Response:
    """All metrics in Prometheus' or OpenMetrics' text format.

    Switched off by ``integration.export_recovery_metrics: false``.
    """
    if not context.policy.integration.export_recovery_metrics:
        text = "switched off by integration.export_recovery_metrics"
        return JSONResponse(answers.body("not_exported", text), 404)
    content, content_type = exposition.expose(context, request.headers.get("accept", ""))
    return Response(content, headers={"content-type": content_type})

"""The application: every route behind the gate, and what runs beside them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware

from recovery import __version__
from recovery.errors import RecoveryError
from recovery.http import alerts, answers, api, exposition, health, login, page, pages, stream
from recovery.http.gate import Gate

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from recovery.http.context import Context

SMALLEST_COMPRESSED = 1024

log = structlog.get_logger()


def build(context: Context, watch: stream.Watch) -> ASGIApp:
    """What uvicorn runs."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        beside = [asyncio.create_task(work()) for work in _works(context)]
        yield
        for task in beside:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    app = FastAPI(
        title="recovery",
        summary="Automated recovery and failover for a self-hosted LLM stack",
        version=__version__,
        openapi_url="/api/v1/openapi.json",
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.context = context
    app.state.board, app.state.watch = watch.board, watch
    app.mount("/static", page.Static(directory=pages.STATIC))
    answers.install(app)
    app.add_middleware(GZipMiddleware, minimum_size=SMALLEST_COMPRESSED, compresslevel=5)
    for routes in (health, alerts, api, login, page, stream):
        app.include_router(routes.router)
    return Gate(app, context.settings)


def _works(context: Context) -> list[Callable[[], Coroutine[Any, Any, None]]]:
    path = context.policy.http.metrics_textfile
    if path is None or not context.policy.integration.export_recovery_metrics:
        return []
    return [lambda: _export(context, path)]


async def _export(context: Context, path: Path) -> None:
    """Write the text file again and again; what fails is said and tried again."""
    while True:
        try:
            await asyncio.to_thread(exposition.write_textfile, context, path)
        except RecoveryError as error:
            log.warning("metrics not exported", error=error.message)
        await asyncio.sleep(context.policy.integration.metrics_export_interval_seconds)

"""The baseline of ``bench.http``: one endpoint and one page of the same framework, nothing else."""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

app = FastAPI()


@app.get("/bare")
def bare() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/")
def page() -> HTMLResponse:
    return HTMLResponse("<!doctype html><title>bare</title><p>nothing</p>")


if __name__ == "__main__":
    port = int(sys.argv[1])
    uvicorn.run(app, port=port, http="h11", loop="asyncio", log_level="warning", access_log=False)

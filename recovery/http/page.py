"""The routes of the status page: the page itself, one recovery, and what its forms send."""

from __future__ import annotations

from http import HTTPStatus
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any, cast
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

from recovery import approvals, producer, records
from recovery.errors import InvalidEvent, RecoveryError, UnknownRecovery
from recovery.http import pages
from recovery.http.board import FRESH_SECONDS, Board
from recovery.http.context import Context, caller_of, context_of
from recovery.http.standing import Word

if TYPE_CHECKING:
    from starlette.types import Scope

router = APIRouter(include_in_schema=False)

In = Annotated[Context, Depends(context_of)]


def board_of(request: Request) -> Board:
    return cast("Board", request.app.state.board)


class Static(StaticFiles):
    """Files of a release: asked for again each time, sent only when they are others."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        answer.headers["cache-control"] = "no-cache"
        return answer


@router.get("/")
def index(request: Request, context: In) -> HTMLResponse:
    board = board_of(request)
    board.refresh(max_age=FRESH_SECONDS)
    refs = context.policy.target_refs()
    by_component = groupby(refs, key=lambda ref: ref.component)
    rows = [(name, [f"t:{ref}" for ref in group]) for name, group in by_component]
    text = pages.render(
        "index.html",
        board=board,
        caller=caller_of(request),
        components=[name for name, _ in rows],
        words=[(word.value, word.label) for word in Word],
        rows=rows,
    )
    return HTMLResponse(text)


@router.get("/recoveries/{recovery_id}")
def one(context: In, recovery_id: str, part: Annotated[bool, Query()] = False) -> HTMLResponse:
    """One recovery whole: as a page, or as the part of one that the script asks for."""
    try:
        record = records.load(context.control, recovery_id)
    except UnknownRecovery as error:
        text = pages.render("message.html", title="Not here any more", text=error.message)
        return HTMLResponse(text, HTTPStatus.NOT_FOUND)
    facts = {
        "r": record,
        "steps": records.steps(context.control, recovery_id),
        "figures": _figures(record),
    }
    return HTMLResponse(pages.render("_recovery.html" if part else "recovery.html", **facts))


@router.post("/decide/{recovery_id}")
async def decide(request: Request, recovery_id: str) -> Response:
    """Approve or deny, by whoever is signed in."""
    said = parse_qs((await request.body()).decode(errors="replace"))
    decision, reason = (said.get(key, [""])[0][:200] for key in ("decision", "reason"))
    wants_json = "application/json" in request.headers.get("accept", "")
    try:
        await run_in_threadpool(_decide, request, recovery_id, decision, reason)
    except RecoveryError as error:
        if wants_json:
            raise
        text = pages.render("message.html", title="Not done", text=error.message)
        return HTMLResponse(text, HTTPStatus.CONFLICT)
    if wants_json:
        return JSONResponse({"id": recovery_id, "decision": decision})
    return RedirectResponse("/", status_code=HTTPStatus.SEE_OTHER)


def _decide(request: Request, recovery_id: str, decision: str, reason: str) -> None:
    context, by = context_of(request), caller_of(request).name
    if by is None:
        raise InvalidEvent("sign in, so that the audit trail knows you", {"field": "by"})
    if not reason.isprintable():
        raise InvalidEvent("the reason must be one line", {"field": "reason"})
    if decision == "approve":
        approvals.approve(context.control, context.policy, recovery_id, by=by, reason=reason)
        producer.follow_approval(recovery_id, context.app)
    elif decision == "deny":
        approvals.deny(context.control, context.policy, recovery_id, by=by, reason=reason)
    else:
        raise InvalidEvent("approve or deny", {"field": "decision"})


def _figures(record: Any) -> list[str]:
    outcome = record.outcome
    reports = (
        record.before,
        outcome.before if outcome else None,
        outcome.after if outcome else None,
    )
    names: dict[str, None] = {}
    for report in reports:
        names |= dict.fromkeys(report.figures if report else ())
    return list(names)

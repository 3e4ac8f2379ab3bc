"""Signing in to the status page: a token and a name become a session."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from recovery.http import pages
from recovery.http.access import COOKIE, SESSION_SECONDS, TooManyGuesses
from recovery.http.context import context_of, door_of

if TYPE_CHECKING:
    from recovery.http.access import Caller

router = APIRouter(include_in_schema=False)

_LONGEST_FORM = 4096


@router.get("/login")
def ask(request: Request) -> HTMLResponse:
    return _form(request)


@router.post("/login")
async def sign_in(request: Request) -> Response:
    """Redirect to the page with a session; ask again where the token is wrong."""
    body = await request.body()
    if len(body) > _LONGEST_FORM:
        return _form(request, "That is too long.", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    said = parse_qs(body.decode(errors="replace"))
    token, name = (said.get(key, [""])[0].strip() for key in ("token", "name"))
    client = request.client.host if request.client else ""
    caller = door_of(request).try_token(client, token)
    if isinstance(caller, TooManyGuesses):
        text = f"Too many wrong tokens. Try again in {math.ceil(caller.retry_after)} seconds."
        return _form(request, text, HTTPStatus.TOO_MANY_REQUESTS, name)
    if not caller.may_read:
        return _form(request, "That token is not known here.", HTTPStatus.UNAUTHORIZED, name)
    if not name.isprintable() or not name:
        return _form(request, "Say who you are: it stands in the audit trail.", HTTPStatus(422))
    return _opened(request, caller, name)


@router.post("/logout")
def sign_out() -> Response:
    answer = RedirectResponse("/", status_code=HTTPStatus.SEE_OTHER)
    answer.delete_cookie(COOKIE, path="/")
    return answer


def _opened(request: Request, caller: Caller, name: str) -> Response:
    answer = RedirectResponse("/", status_code=HTTPStatus.SEE_OTHER)
    answer.set_cookie(
        COOKIE,
        door_of(request).open_session(caller, name),
        max_age=SESSION_SECONDS,
        path="/",
        httponly=True,
        samesite="strict",
        secure=context_of(request).settings.is_behind_tls,
    )
    return answer


def _form(request: Request, problem: str = "", status: int = 200, name: str = "") -> HTMLResponse:
    context = context_of(request)
    made = context.settings.made_token
    file = made if not context.settings.is_exposed else None
    text = pages.render("login.html", problem=problem, name=name, file=file)
    return HTMLResponse(text, status)

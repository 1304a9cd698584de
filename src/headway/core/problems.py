"""Turns every error into one shape of answer: RFC 9457 ``application/problem+json``.

The only file of exception handlers; ``main.create_app`` installs them. What is not foreseen becomes a 500 without a
word of detail to the caller and one error line in the log.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from headway.core import validation
from headway.core.errors import HeadwayError, InvalidInputError, Issue

MEDIA_TYPE = "application/problem+json"
log = structlog.get_logger()

_FRAMEWORK = {404: ("not_found", "Not found"), 405: ("method_not_allowed", "Method not allowed")}


def document(*, status: int, code: str, title: str, detail: str, issues: tuple[Issue, ...] = ()) -> dict[str, Any]:
    """Return the members of a problem document."""
    members: dict[str, Any] = {
        "type": f"urn:headway:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if issues:
        members["errors"] = [{"pointer": i.pointer, "code": i.code, "detail": i.detail} for i in issues]
    return members


def respond(error: HeadwayError) -> Response:
    """Return the answer for one of our own errors."""
    body = document(
        status=error.status, code=error.problem_code, title=error.title(), detail=error.detail, issues=error.issues
    )
    return _response(body, error.headers)


def _response(body: dict[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(body), status_code=body["status"], headers=dict(headers or {}), media_type=MEDIA_TYPE)


def install(app: FastAPI, *, admit: Callable[[Request], Awaitable[None]]) -> None:
    """Install the handlers; ``admit`` lets a caller in, or raises why not, before it learns that nothing is there."""

    @app.exception_handler(HeadwayError)
    async def _own(_request: Request, error: HeadwayError) -> Response:
        if error.status >= 500 and error.status != 503:
            log.error("request_failed", code=error.problem_code, error=str(error), exc_info=error)
        return respond(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> Response:
        return respond(invalid_input(error))

    @app.exception_handler(HTTPException)
    async def _framework(request: Request, error: HTTPException) -> Response:
        if error.status_code in _FRAMEWORK:
            try:
                await admit(request)
            except HeadwayError as refusal:
                return respond(refusal)
        code, title = _FRAMEWORK.get(error.status_code, ("malformed_request", "Malformed request"))
        detail = "there is nothing at this path" if error.status_code == 404 else str(error.detail)
        return _response(document(status=error.status_code, code=code, title=title, detail=detail), error.headers)

    @app.exception_handler(ClientDisconnect)
    async def _gone(_request: Request, _error: ClientDisconnect) -> Response:
        return Response(status_code=400)

    @app.exception_handler(Exception)
    async def _bug(_request: Request, _error: Exception) -> Response:
        # the stack is logged by the request middleware, which sees every exception that gets here
        return respond(HeadwayError("something went wrong; the log of the service says what"))


def invalid_input(error: RequestValidationError) -> InvalidInputError:
    """Return FastAPI's refusal in our words; pointers start at the body, or name the place (query, path, header)."""
    issues: list[Issue] = []
    for item in error.errors():
        place, *rest = item["loc"]
        prefix = () if place == "body" else (place,)
        issues += validation.issues_of([{**item, "loc": rest}], prefix)
    first = issues[0]
    more = f" (and {len(issues) - 1} more)" if len(issues) > 1 else ""
    return InvalidInputError(f"{first.pointer or 'the body'} {first.detail}{more}", issues=issues)

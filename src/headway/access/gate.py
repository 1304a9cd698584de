"""The gate that every request under ``/api/v1`` passes, in this order: key, scope, path, query, body.

``Route`` is the class of all our routes, so that a new one cannot forget it (``tests/contract/test_access.py`` walks
the OpenAPI document). A route asks for another scope than its method's by ``needs``.
"""

import re
from collections import Counter
from collections.abc import Callable, Coroutine
from itertools import islice
from typing import Annotated, Any, get_args, get_origin

from fastapi import APIRouter, Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.responses import Response

from headway.access.principal import EVERYONE, Principal, Scope
from headway.core import body, json_text, validation
from headway.core.errors import ForbiddenError, InvalidInputError, Issue, NotFoundError, UnsupportedEncodingError

SMALL_BODY_BYTES = 1024 * 1024
SCOPE_EXTENSION = "x-headway-scope"
UNBOUND_EXTENSION = "x-headway-unbound"

_JSON_MEDIA = re.compile(r"application/(?:[a-z0-9][a-z0-9!#$&^_.-]*\+)?json", re.IGNORECASE)


def needs(scope: Scope, **extra: Any) -> dict[str, Any]:
    """Return the ``openapi_extra`` of a route that needs another scope than its method says."""
    return {SCOPE_EXTENSION: scope.value, **extra}


async def admit(request: Request, scope: Scope) -> Principal:
    """Let a request in, or say why not.

    Raises:
        ForbiddenError: the key lacks the scope.
        UnauthorizedError: no valid key.
    """
    if request.app.state.settings.auth == "none":
        principal = EVERYONE
    else:
        principal = await request.app.state.key_ring.authenticate(request.headers.get("authorization"))
        if scope not in principal.scopes:
            raise ForbiddenError(f"this needs a key with the scope {scope.value}", code="scope_missing")
    request.state.principal = principal
    return principal


async def admit_unmatched(request: Request) -> None:
    """Ask for a key where no route is, too, so that 401 and 403 come before 404 and 405 under the API's prefixes.

    Raises:
        ForbiddenError, UnauthorizedError: as ``admit``.
    """
    if not request.url.path.startswith(("/api/", "/in/")):
        return
    if request.app.state.settings.auth == "keys":
        principal = await request.app.state.key_ring.authenticate(request.headers.get("authorization"))
        if request.method == "GET" and Scope.READ not in principal.scopes:
            raise ForbiddenError("this needs a key with the scope read", code="scope_missing")


class _LoadedRequest(Request):
    """A request whose JSON body has been read and checked."""

    async def json(self) -> Any:
        return self.state.json


class Route(APIRoute):
    """A route behind the gate."""

    @property
    def scope(self) -> Scope:
        """Return what a key needs for this route: read to look, admin to write, unless the route says otherwise."""
        wanted = (self.openapi_extra or {}).get(SCOPE_EXTENSION)
        return Scope(wanted) if wanted else Scope.READ if "GET" in (self.methods or ()) else Scope.ADMIN

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler: the gate around FastAPI's own."""
        inner = super().get_route_handler()
        known = _query_names(self.dependant)
        has_body = self.body_field is not None
        is_for_unbound = bool((self.openapi_extra or {}).get(UNBOUND_EXTENSION))

        async def handler(request: Request) -> Response:
            principal = await admit(request, self.scope)
            if is_for_unbound and principal.client_id is not None:
                raise ForbiddenError("this needs a key that is bound to no client", code="key_bound")
            _check_path(request)
            _check_query(request, known)
            if not has_body:
                return await inner(request)
            _check_content_type(request)
            request = _LoadedRequest(request.scope, request.receive)
            with body.Reservation(request.app.state.in_flight) as reservation:
                document = await body.read(request, limit=SMALL_BODY_BYTES, reservation=reservation)
                request._body = document  # noqa: SLF001 - how Starlette's documentation replaces a body
                request.state.json = json_text.parse(document)
                return await inner(request)

        return handler


def router(tag: str, *, prefix: str = "/api/v1") -> APIRouter:
    """Return a router whose routes are behind the gate."""
    return APIRouter(route_class=Route, prefix=prefix, tags=[tag])


def _query_names(dependant: Dependant) -> dict[str, bool]:
    """Return the names of all query parameters of a route, each with whether it may be repeated."""
    names = {p.alias: _is_list(p.field_info.annotation) for p in dependant.query_params}
    for inner in dependant.dependencies:
        names |= _query_names(inner)
    return names


def _is_list(annotation: Any) -> bool:
    return any(get_origin(kind) is list for kind in (annotation, *get_args(annotation)))


def _check_path(request: Request) -> None:
    if any(isinstance(part, str) and "\0" in part for part in request.path_params.values()):
        raise NotFoundError("there is nothing at this path")


def _check_query(request: Request, known: dict[str, bool]) -> None:
    """Refuse parameters that the route does not have, and those given twice that can have one value alone."""
    names = ", ".join(sorted(known)) or "none"
    given = Counter(name for name, _ in request.query_params.multi_items())
    issues = []
    for name, count in islice(given.items(), validation.MAX_ISSUES):
        pointer = validation.json_pointer(("query", validation.printable(name)))
        if name not in known:
            issues.append(Issue(pointer, "unknown_parameter", f"is not a parameter; known are: {names}"))
        elif count > 1 and not known[name]:
            issues.append(Issue(pointer, "repeated_parameter", "is given more than once"))
    if issues:
        raise InvalidInputError(f"{issues[0].pointer} {issues[0].detail}", issues=issues)


def _check_content_type(request: Request) -> None:
    media = request.headers.get("content-type", "").partition(";")[0].strip()
    if not _JSON_MEDIA.fullmatch(media):
        raise UnsupportedEncodingError("Content-Type must be application/json", code="unsupported_media_type")


def _caller(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


Caller = Annotated[Principal, Depends(_caller)]

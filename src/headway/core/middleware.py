"""What surrounds every request: an id, one count, and a log line where there is something to tell.

Pure ASGI, so that streaming bodies pass untouched. Paths are never logged, only route templates: under /ping and
/webhooks the path holds a credential. A successful ingest request writes no line; the metrics count it.
"""

import re
import time
from typing import Any
from uuid import uuid4

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.core.errors import HeadwayError
from headway.core.problems import respond

log = structlog.get_logger()
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,100}")
_QUIET = {"/healthz", "/readyz", "/metrics"}


class RequestMiddleware:
    """Counts and logs requests, and answers 500 where everything else failed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given.decode() if _REQUEST_ID.fullmatch(given) else uuid4().hex
        started = time.perf_counter()
        status = 500
        has_begun = False

        async def send_counted(message: Message) -> None:
            nonlocal status, has_begun
            if message["type"] == "http.response.start":
                status, has_begun = message["status"], True
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_counted)
            except Exception:
                log.exception("request_crashed", method=scope["method"], route=route_of(scope))
                if has_begun:
                    raise
                answer = respond(HeadwayError("something went wrong; the log of the service says what"))
                await answer(scope, receive, send_counted)
            finally:
                self._tell(scope, status, time.perf_counter() - started)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        route = route_of(scope)
        state = scope["app"].state
        state.metrics.count_request(method=scope["method"], route=route, status=status, seconds=seconds)
        # here and not at the scrape, which one process answers for all
        state.metrics.waiting.set(state.shared_writer.waiting)
        state.metrics.bytes_in_flight.set(state.in_flight.held)
        is_quiet = status < 400 and (scope["method"] != "GET" or route in _QUIET)
        if not is_quiet:
            level = log.warning if status >= 500 else log.info
            level("request_finished", method=scope["method"], route=route, status=status, ms=round(seconds * 1000, 1))


def route_of(scope: Scope) -> str:
    """Return the template of the route that a request matched."""
    route: Any = scope.get("route")
    return getattr(route, "path", "unmatched")

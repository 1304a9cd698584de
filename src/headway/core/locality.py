"""Keeps a service without keys to this machine: no foreign host, no proxy, no page of another site.

Around everything while ``HEADWAY_AUTH`` is ``none`` (``main.create_app``), the open paths included, so that neither a
rebound DNS name nor a form on somebody's page reaches a service that asks nobody who they are.
"""

import re
from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from headway.core.errors import ForbiddenError
from headway.core.problems import respond

_LOCAL = r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"
_HOST = re.compile(_LOCAL.encode(), re.IGNORECASE)
_ORIGIN = re.compile(rb"https?://" + _LOCAL.encode(), re.IGNORECASE)
_PROXY = re.compile(rb"forwarded|x-forwarded-.*|x-real-ip")
_WAY_OUT = "set HEADWAY_AUTH=keys"


class LocalOnlyMiddleware:
    """Answers 403 to what was not sent to this machine by this machine."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        refusal = find_refusal(scope["headers"]) if scope["type"] == "http" else None
        await (self._app if refusal is None else respond(refusal))(scope, receive, send)


def find_refusal(headers: Iterable[tuple[bytes, bytes]]) -> ForbiddenError | None:
    """Return why a request with these headers is not served without keys; None where it is."""
    pairs = list(headers)
    hosts = [value for name, value in pairs if name == b"host"]
    if len(hosts) != 1 or _HOST.fullmatch(hosts[0]) is None:
        detail = f"without keys only the hosts localhost, 127.0.0.1 and [::1] are served; {_WAY_OUT}"
        return ForbiddenError(detail, code="host_not_local")
    if any(_PROXY.fullmatch(name) for name, _ in pairs):
        return ForbiddenError(f"without keys no request through a proxy is served; {_WAY_OUT}", code="proxied")
    if any(name == b"origin" and _ORIGIN.fullmatch(value) is None for name, value in pairs):
        return ForbiddenError(f"without keys no page of another site is served; {_WAY_OUT}", code="origin_not_local")
    return None

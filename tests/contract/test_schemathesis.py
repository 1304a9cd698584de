"""Schemathesis against the running service and the real database: whatever fits the OpenAPI document, and what does not.

The service listens on a loopback port, so that requests go through the HTTP server's own parser. Held: no 500, no
status, media type or body that the document does not name.
"""

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from headway.main import create_app
from headway.settings import load_settings

CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 6
# The answer of the HTTP server itself to what it does not take for a request, such as a URL of 64 KiB.
NOT_HTTP = b"Invalid HTTP request received."


@schemathesis.serializer("application/x-ndjson")
def _line(_context: schemathesis.SerializationContext, value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


@pytest.fixture(scope="module")
def address(app_url: str) -> Iterator[str]:
    """Serve on a free loopback port from a thread; yields the base URL."""
    app = create_app(load_settings({}, auth="none"), app_url)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


# The HTTP server answers control characters in a header by itself: they never come as far as the service.
_CONFIG = schemathesis.Config.from_dict(
    {
        "generation": {
            "with-security-parameters": False,
            "exclude-header-characters": "".join(map(chr, [*range(32), 127])),
        }
    }
)
service = schemathesis.openapi.from_dict(
    create_app(load_settings({}, auth="none"), "postgresql://localhost/headway").openapi(), config=_CONFIG
)


@pytest.mark.usefixtures("db")
@service.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_service_keeps_its_document(case: schemathesis.Case[Any], address: str) -> None:
    response = case.call(base_url=address)
    if response.content != NOT_HTTP:
        case.validate_response(response, checks=CHECKS)

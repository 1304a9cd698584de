"""A platform to read from: a real HTTP server on the loopback address, whose answers a subclass makes up.

Connectors are tested against it over real sockets. A subclass holds the platform's runs in memory and answers as the
real server does: its paging, its filters, its order. Trouble is scripted from outside with ``trouble`` and ``between``.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit


class Asked(NamedTuple):
    """A request as it came in. ``query`` has the last value of each name, ``queries`` all of them."""

    method: str
    path: str
    query: dict[str, str]
    queries: dict[str, list[str]]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Reply(NamedTuple):
    """What to answer. ``delay_seconds`` passes before the first byte; ``drip`` sends the body a byte at a time.

    ``hang_up`` closes the connection after so many bytes of the body (the header has promised all of it).
    """

    status: int = 200
    document: Any = None
    headers: Mapping[str, str] = {}
    body: bytes | None = None
    delay_seconds: float = 0.0
    drip: bool = False
    hang_up: int | None = None

    @property
    def content(self) -> bytes:
        if self.body is not None:
            return self.body
        return b"" if self.document is None else json.dumps(self.document).encode()


class FakePlatform:
    """Serves ``answer`` while it is entered. ``asked`` has all requests in their order."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        #: Replies given in place of the platform's own, one a request, the first first.
        self.trouble: deque[Reply] = deque()
        #: Called after each request that ``is_listing``: a place to let rows move while somebody pages through them.
        self.between: Callable[[Asked], None] | None = None
        self.lock = threading.RLock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.platform = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, asked: Asked) -> Reply:
        """Answer as the platform does."""
        raise NotImplementedError

    def is_listing(self, asked: Asked) -> bool:
        """Tell whether a request asks for a page of runs."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def reply(self, asked: Asked) -> Reply:
        with self.lock:
            self.asked.append(asked)
            if self.trouble:
                return self.trouble.popleft()
            made = self.answer(asked)
            if self.between is not None and self.is_listing(asked):
                self.between(asked)
            return made


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    platform: FakePlatform

    def handle_error(self, request: object, client_address: object) -> None:
        """Leave out the traceback of a caller that hung up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer's body waits for the acknowledgement of its head
    server: _Server

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        queries = parse_qs(parts.query, keep_blank_values=True)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = Asked(
            self.command, parts.path, {k: v[-1] for k, v in queries.items()}, queries, dict(self.headers.items()), body
        )
        reply = self.server.platform.reply(asked)
        if reply.delay_seconds:
            time.sleep(reply.delay_seconds)
        content = reply.content
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if reply.hang_up is not None:
            content, self.close_connection = content[: reply.hang_up], True
        if not reply.drip:
            self.wfile.write(content)
            return
        for byte in content:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.05)

    do_GET = do_POST = do_HEAD = _serve  # noqa: N815 - what the standard library calls

    def log_message(self, *_: object) -> None:
        """Say nothing."""

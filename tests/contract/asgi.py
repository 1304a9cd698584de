"""Speaks ASGI to the service directly, for requests that no well-behaved HTTP library sends."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NamedTuple

from fastapi import FastAPI
from starlette.types import Message


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    def problem(self) -> dict[str, Any]:
        """Return the problem document that the answer must be."""
        assert self.headers[b"content-type"] == b"application/problem+json", self.body
        document: dict[str, Any] = json.loads(self.body)
        assert document.keys() >= {"type", "title", "status", "detail", "code"}
        assert document["status"] == self.status
        return document


async def call(
    app: FastAPI,
    method: str,
    path: str,
    *,
    query: bytes = b"",
    headers: Sequence[tuple[bytes, bytes]] = (),
    chunks: Iterable[bytes] | AsyncIterator[bytes] = (),
    ends: str = "http.request",
) -> Answer:
    """Send one request; after its chunks the body ends, or the caller hangs up (``http.disconnect``), or is silent."""
    chunks = iter(chunks) if isinstance(chunks, Iterable) else chunks
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(errors="replace"),
        "root_path": "",
        "query_string": query,
        "headers": [(b"host", b"localhost"), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    sent: list[Message] = []

    async def receive() -> Message:
        chunk = await anext(chunks, None) if isinstance(chunks, AsyncIterator) else next(chunks, None)
        if chunk is not None:
            return {"type": "http.request", "body": chunk, "more_body": True}
        if ends == "silence":
            await asyncio.Event().wait()
        return {"type": ends, "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    begin = next(m for m in sent if m["type"] == "http.response.start")
    body = b"".join(m.get("body", b"") for m in sent if m["type"] == "http.response.body")
    return Answer(begin["status"], dict(begin["headers"]), body)

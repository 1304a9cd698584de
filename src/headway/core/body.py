"""Reads request bodies: bounded in size, time and memory, and unpacked.

``stream`` yields the plain bytes of a body sent as is, gzip or zstd; whatever a caller sends, no more than a slice is
unpacked at a time. The bytes that all requests of a process hold together are bounded by ``InFlight``; beyond it a
request is refused with 503 before its body is taken.
"""

import asyncio
import io
import zlib
from collections.abc import AsyncIterator, Iterator

import zstandard
from starlette.requests import Request

from headway.core.errors import (
    BadRequestError,
    HeadwayError,
    TooLargeError,
    UnavailableError,
    UnsupportedEncodingError,
)

SLICE = 256 * 1024
_ZSTD_WINDOW = 8 * 1024 * 1024  # what RFC 8878 asks every reader to take


class BodyTimeoutError(HeadwayError):
    """Request body too slow."""

    status = 408
    code = "body_timeout"


class InFlight:
    """Counts the bytes of bodies that a process holds, and refuses more than it may."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def take(self, size: int) -> None:
        """Count ``size`` more bytes.

        Raises:
            UnavailableError: there is no room for them at present.
        """
        if self.held + size > self.limit:
            raise UnavailableError("too many request bodies are being read; try again", code="overloaded")
        self.held += size

    def release(self, size: int) -> None:
        """Count ``size`` bytes less."""
        self.held -= size


class Reservation:
    """The bytes that one request holds; given back when the request ends."""

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._size = 0

    def take(self, size: int) -> None:
        """Hold ``size`` more bytes."""
        self._in_flight.take(size)
        self._size += size

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(self, *_: object) -> None:
        self._in_flight.release(self._size)


async def stream(request: Request, *, limit: int, reservation: Reservation) -> AsyncIterator[bytes]:
    """Yield the unpacked body in slices of at most ``SLICE`` bytes (plain bodies: as they arrive).

    Raises:
        UnsupportedEncodingError, TooLargeError, BodyTimeoutError, BadRequestError, UnavailableError
    """
    decoder = _decoder(request.headers.get("content-encoding", ""))
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    received = unpacked = 0
    async for chunk in _timed(request):
        received += len(chunk)
        if received > limit:
            raise _too_large(limit)
        reservation.take(len(chunk))
        for piece in decoder.feed(chunk):
            unpacked += len(piece)
            if unpacked > limit:
                raise _too_large(limit)
            yield piece
    for piece in decoder.finish():
        unpacked += len(piece)
        if unpacked > limit:
            raise _too_large(limit)
        yield piece


async def read(request: Request, *, limit: int, reservation: Reservation) -> bytes:
    """Return the whole unpacked body."""
    parts = []
    async for piece in stream(request, limit=limit, reservation=reservation):
        parts.append(piece)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _timed(request: Request) -> AsyncIterator[bytes]:
    seconds = request.app.state.settings.body_timeout_seconds
    chunks = request.stream()
    while True:
        try:
            async with asyncio.timeout(seconds):
                chunk = await anext(chunks, None)
        except TimeoutError:
            detail = f"no part of the body arrived for {seconds:g} seconds"
            raise BodyTimeoutError(detail) from None
        if chunk is None:
            return
        if chunk:
            yield chunk


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"the body must have at most {limit} bytes unpacked; send it in parts")


class _Plain:
    def feed(self, chunk: bytes) -> Iterator[bytes]:
        yield chunk

    def finish(self) -> Iterator[bytes]:
        yield from ()


class _Gzip:
    """gzip as it arrives, one or several members."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self._started = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        try:
            while chunk:
                if self._member.eof:
                    self._member = zlib.decompressobj(wbits=31)
                self._started = True
                piece = self._member.decompress(chunk, SLICE)
                chunk = self._member.unconsumed_tail or self._member.unused_data
                if piece:
                    yield piece
            while not self._member.eof and (piece := self._member.decompress(b"", SLICE)):
                yield piece
        except zlib.error:
            raise BadRequestError("the body is not gzip", code="invalid_encoding") from None

    def finish(self) -> Iterator[bytes]:
        if self._started and not self._member.eof:
            raise BadRequestError("the gzip body ends too early", code="invalid_encoding")
        yield from ()


class _Zstd:
    """zstd, unpacked once it is here: its decoder can only be bounded when it pulls."""

    def __init__(self) -> None:
        self._packed = io.BytesIO()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        self._packed.write(chunk)
        yield from ()

    def finish(self) -> Iterator[bytes]:
        size = self._packed.tell()
        self._packed.seek(0)
        reader = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).stream_reader(
            self._packed, read_across_frames=True
        )
        unpacked = 0
        try:
            while piece := reader.read(SLICE):
                unpacked += len(piece)
                yield piece
        except zstandard.ZstdError:
            detail = "the body is not zstd with a window of at most 8 MiB"
            raise BadRequestError(detail, code="invalid_encoding") from None
        if size and not unpacked:
            raise BadRequestError("the zstd body is empty or ends too early", code="invalid_encoding")


_Decoder = _Plain | _Gzip | _Zstd
_DECODERS: dict[str, type[_Plain] | type[_Gzip] | type[_Zstd]] = {
    "": _Plain,
    "identity": _Plain,
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "zstd": _Zstd,
}


def _decoder(encoding: str) -> _Decoder:
    made = _DECODERS.get(encoding.strip().lower())
    if made is None:
        raise UnsupportedEncodingError("Content-Encoding must be gzip, zstd or identity, and one alone")
    return made()

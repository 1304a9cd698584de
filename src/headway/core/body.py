"""Reads request bodies: bounded in size, time and memory, and unpacked.

``stream`` yields the plain bytes of a body sent as is, gzip or zstd, unpacked as it arrives and a little at a time,
whatever a caller sends. The unpacked bytes that all requests of a process hold together are bounded by ``InFlight``;
a request that would go beyond it is refused with 503.
"""

import asyncio
import io
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Self

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
_STEP = 256  # packed bytes at a time: zstd makes at most 8 MiB of them (a block of 128 KiB takes four), gzip 256 KiB
_MAX_MEMBERS = 10_000


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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._in_flight.release(self._size)


async def stream(request: Request, *, limit: int, reservation: Reservation) -> AsyncIterator[bytes]:
    """Yield the unpacked body in pieces of about ``SLICE`` bytes, the event loop free in between.

    What was yielded counts as held until the reservation ends.

    Raises:
        UnsupportedEncodingError, TooLargeError, BodyTimeoutError, BadRequestError, UnavailableError
    """
    decoder = _decoder(", ".join(request.headers.getlist("content-encoding")))
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 15 or int(declared) > limit):
        raise _too_large(limit)
    received = unpacked = 0
    async for chunk in _timed(request):
        received += len(chunk)
        if received > limit:
            raise _too_large(limit)
        for piece in decoder.feed(chunk):
            unpacked += len(piece)
            if unpacked > limit:
                raise _too_large(limit)
            reservation.take(len(piece))
            yield piece
            await asyncio.sleep(0)
    decoder.finish()


async def read(request: Request, *, limit: int, reservation: Reservation) -> bytes:
    """Return the whole unpacked body."""
    whole = io.BytesIO()
    async for piece in stream(request, limit=limit, reservation=reservation):
        whole.write(piece)
    return whole.getvalue()  # which is its buffer, not a copy


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
        if len(chunk) <= SLICE:
            yield chunk
            return
        for start in range(0, len(chunk), SLICE):
            yield chunk[start : start + SLICE]

    def finish(self) -> None:
        """There is nothing to miss: the server counts what Content-Length announces."""


class _Packed:
    """Unpacks as the body arrives, one or several members (gzip) or frames (zstd) one behind the other.

    zstd's decoder cannot be told how much to give back at most, so both are fed so little that they cannot give much.
    """

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self._name, self._make = name, make
        self._member: Any = None
        self._members = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        ready, size = [], 0
        for start in range(0, len(chunk), _STEP):
            for piece in self._unpack(chunk[start : start + _STEP]):
                ready.append(piece)
                size += len(piece)
            if size >= SLICE:
                yield b"".join(ready)
                ready, size = [], 0
        if size:
            yield b"".join(ready)

    def finish(self) -> None:
        if self._member is not None and not self._member.eof:
            raise BadRequestError(f"the {self._name} body ends too early", code="invalid_encoding")

    def _unpack(self, packed: bytes) -> Iterator[bytes]:
        while packed:
            if self._member is None or self._member.eof:
                self._members += 1
                self._member = self._make()
                if self._members > _MAX_MEMBERS:
                    raise BadRequestError(f"the {self._name} body has too many parts", code="invalid_encoding")
            try:
                yield self._member.decompress(packed)
            except (zlib.error, zstandard.ZstdError) as error:
                raise BadRequestError(self._refusal(error), code="invalid_encoding") from None
            packed = self._member.unused_data

    def _refusal(self, error: Exception) -> str:
        if "too much memory" in str(error):
            return "the zstd body needs a window of more than 8 MiB; pack it without --long or --ultra"
        return f"the body is not {self._name}"


def _gzip() -> _Packed:
    return _Packed("gzip", lambda: zlib.decompressobj(wbits=31))


def _zstd() -> _Packed:
    # A decompressor serves one stream at a time.
    return _Packed("zstd", lambda: zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj())


_DECODERS: dict[str, Callable[[], _Plain | _Packed]] = {
    "": _Plain,
    "identity": _Plain,
    "gzip": _gzip,
    "x-gzip": _gzip,
    "zstd": _zstd,
}


def _decoder(encoding: str) -> _Plain | _Packed:
    make = _DECODERS.get(encoding.strip().lower())
    if make is None:
        raise UnsupportedEncodingError("Content-Encoding must be gzip, zstd or identity, and one alone")
    return make()

"""Unpacking: in whatever pieces a body arrives, it comes out whole or is refused, and in small pieces."""

import gzip
import itertools
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core import body
from headway.core.errors import BadRequestError, UnavailableError

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "identity": lambda plain: plain,
}


def unpack(encoding: str, packed: bytes, step: int) -> bytes:
    decoder = body._decoder(encoding)
    pieces = [piece for start in range(0, len(packed), step) for piece in decoder.feed(packed[start : start + step])]
    decoder.finish()
    assert all(len(piece) <= body.SLICE + 8 * 1024 * 1024 for piece in pieces)
    return b"".join(pieces)


@given(st.sampled_from(sorted(PACK)), st.lists(st.binary(max_size=2000), min_size=1, max_size=5), st.integers(1, 700))
@settings(max_examples=100, deadline=None)
def test_parts_come_out_whole_in_whatever_pieces_they_arrive(encoding: str, parts: list[bytes], step: int) -> None:
    packed = b"".join(map(PACK[encoding], parts))
    assert unpack(encoding, packed, step) == b"".join(parts)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_body_that_is_cut_anywhere_is_refused(encoding: str) -> None:
    packed = PACK[encoding](b"some text " * 50)
    for length in range(1, len(packed)):
        with pytest.raises(BadRequestError):
            unpack(encoding, packed[:length], 16)
    assert unpack(encoding, b"", 16) == b""


@given(st.sampled_from(["gzip", "zstd"]), st.binary(min_size=1, max_size=200), st.integers(1, 300))
@settings(max_examples=200, deadline=None)
def test_garbage_is_refused(encoding: str, garbage: bytes, step: int) -> None:
    with pytest.raises(BadRequestError) as refused:
        unpack(encoding, PACK[encoding](b"x") + b"\xff" + garbage, step)
    assert refused.value.problem_code == "invalid_encoding"


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_two_bodies_do_not_disturb_each_other(encoding: str) -> None:
    packed = PACK[encoding](b"first " * 1000), PACK[encoding](b"second " * 1000)
    decoders = body._decoder(encoding), body._decoder(encoding)
    out = bytearray(), bytearray()
    for at in range(max(map(len, packed))):
        for which, decoder in enumerate(decoders):
            for piece in decoder.feed(packed[which][at : at + 1]):
                out[which].extend(piece)
    assert tuple(map(bytes, out)) == (b"first " * 1000, b"second " * 1000)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_bomb_comes_out_in_pieces(encoding: str) -> None:
    packed = PACK[encoding](b"\0" * (64 * 1024 * 1024))
    decoder = body._decoder(encoding)
    sizes = [len(piece) for piece in itertools.islice(decoder.feed(packed), 3)]
    assert len(sizes) == 3
    assert max(sizes) <= body.SLICE + 8 * 1024 * 1024


def test_no_more_than_the_limit_is_held() -> None:
    in_flight = body.InFlight(100)
    with body.Reservation(in_flight) as first:
        first.take(60)
        with body.Reservation(in_flight) as second:
            second.take(40)
            with pytest.raises(UnavailableError):
                second.take(1)
        assert in_flight.held == 60
    assert in_flight.held == 0

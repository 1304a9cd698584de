"""Bodies that are too large, too slow, packed wrongly or cut off: each has its answer, and none costs the process much."""

import asyncio
import gzip
import json
import resource
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest
import structlog
import zstandard

from headway.core.body import InFlight, Reservation
from headway.main import create_app
from headway.runs import splitting
from headway.settings import load_settings
from tests.api import Api, running
from tests.contract.asgi import Answer, call

Db = psycopg.Connection[dict[str, Any]]
MIB = 1024 * 1024
BATCH = "/api/v1/runs/batch"
JSON = (b"content-type", b"application/json")
NDJSON = (b"content-type", b"application/x-ndjson")
RUN = {
    "pipeline": {"client": "acme", "name": "daily", "platform": "airflow"},
    "external_run_id": "run-1",
    "status": "success",
}
DOCUMENT = json.dumps({"runs": [RUN]}).encode()


def zstd(data: bytes, window_log: int = 20) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(window_log=window_log, compression_level=3)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return packer.compress(data) + packer.flush()


def bomb(pack: str, mebibytes: int) -> bytes:
    """Return a packed body that is far larger unpacked, made without being held."""
    packer: Any = zlib.compressobj(9, wbits=31) if pack == "gzip" else zstandard.ZstdCompressor(level=3).compressobj()
    block = b" " * MIB
    return b"".join(packer.compress(block) for _ in range(mebibytes)) + bytes(packer.flush())


async def post(api: Api, body: bytes, *headers: tuple[bytes, bytes], register: bool = True) -> Answer:
    """Send a batch in pieces of 64 KiB, as a server hands them on."""
    chunks = [body[start : start + 65536] for start in range(0, len(body), 65536)]
    query = b"register=true" if register else b""
    return await call(api.app, "POST", BATCH, query=query, headers=headers or (JSON,), chunks=chunks)


async def test_packed_bodies_are_taken_in_any_number_of_parts(api: Api) -> None:
    halves = (DOCUMENT[:20], DOCUMENT[20:])
    bodies = {
        b"gzip": [gzip.compress(DOCUMENT), b"".join(map(gzip.compress, halves)), gzip.compress(b"") * 50],
        b"zstd": [zstd(DOCUMENT), b"".join(map(zstd, halves)), zstandard.compress(DOCUMENT), zstd(DOCUMENT, 23)],
        b"X-GZIP": [gzip.compress(DOCUMENT)],
        b"identity": [DOCUMENT],
    }
    bodies[b"gzip"][2] += gzip.compress(DOCUMENT)
    for encoding, packed in bodies.items():
        for body in packed:
            for step in (1, 7, len(body)):
                chunks = [body[start : start + step] for start in range(0, len(body), step)]
                headers = (JSON, (b"content-encoding", encoding))
                answer = await call(api.app, "POST", BATCH, query=b"register=1", headers=headers, chunks=chunks)
                assert (answer.status, json.loads(answer.body)["received"]) == (200, 1), (encoding, step)


BROKEN: list[tuple[str, bytes, bytes]] = [
    ("gzip garbage", b"gzip", b"this is no gzip at all"),
    ("gzip cut", b"gzip", gzip.compress(DOCUMENT)[:-9]),
    ("gzip without trailer", b"gzip", gzip.compress(DOCUMENT)[:-1]),
    ("gzip with a wrong sum", b"gzip", gzip.compress(DOCUMENT)[:-8] + b"\0" * 8),
    ("gzip and garbage", b"gzip", gzip.compress(DOCUMENT) + b"garbage"),
    ("gzip that is zlib", b"gzip", zlib.compress(DOCUMENT)),
    ("gzip of too many members", b"gzip", gzip.compress(b"") * 10_001),
    ("zstd garbage", b"zstd", b"this is no zstd at all"),
    ("zstd cut", b"zstd", zstd(DOCUMENT)[:-3]),
    ("zstd magic alone", b"zstd", zstd(DOCUMENT)[:3]),
    ("zstd and garbage", b"zstd", zstd(DOCUMENT) + b"garbage!"),
    ("zstd of too many frames", b"zstd", zstandard.compress(b"") * 10_001),
    ("zstd with a window of 128 MiB", b"zstd", zstd(DOCUMENT, 27)),
]


@pytest.mark.parametrize(("encoding", "body"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
async def test_broken_packing_is_400(api: Api, db: Db, encoding: bytes, body: bytes) -> None:
    for media in (JSON, NDJSON):
        answer = await post(api, body, media, (b"content-encoding", encoding))
        assert (answer.status, answer.problem()["code"]) == (400, "invalid_encoding")
    if "window" in answer.problem()["detail"]:
        assert "8 MiB" in answer.problem()["detail"]
    assert db.execute("SELECT count(*) AS n FROM runs").fetchone() == {"n": 0}


@pytest.mark.parametrize("encodings", [[b"br"], [b"deflate"], [b"gzip, gzip"], [b"gzip", b"zstd"], [b"\xff"]])
async def test_unknown_or_stacked_encodings_are_415(api: Api, encodings: list[bytes]) -> None:
    answer = await post(api, gzip.compress(DOCUMENT), JSON, *((b"content-encoding", e) for e in encodings))
    assert (answer.status, answer.problem()["code"]) == (415, "unsupported_encoding")


@pytest.mark.parametrize(
    "media",
    [b"", b"text/plain", b"application/xml", b"application/json2", b"multipart/form-data; boundary=x", b"\xff\xfe"],
)
@pytest.mark.parametrize("path", [BATCH, "/api/v1/clients"])
async def test_other_content_types_are_415(api: Api, path: str, media: bytes) -> None:
    headers = [(b"content-type", media)] if media else []
    answer = await call(api.app, "POST", path, headers=headers, chunks=[DOCUMENT])
    assert (answer.status, answer.problem()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("media", [b"application/json", b"Application/JSON;charset=utf-8", b"application/json; x=\xff"])
async def test_parameters_and_case_of_a_content_type_do_not_matter(api: Api, media: bytes) -> None:
    assert (await post(api, DOCUMENT, (b"content-type", media))).status == 200
    answer = await call(
        api.app, "POST", "/api/v1/clients", headers=[(b"content-type", media)], chunks=[b'{"name":"x"}']
    )
    assert answer.status == 201


async def test_too_many_items_are_413(api: Api, db: Db) -> None:
    line = json.dumps(RUN).encode()
    for media, body in (
        (JSON, b'{"runs":[' + b",".join([line] * (splitting.MAX_ITEMS + 1)) + b"]}"),
        (NDJSON, b"\n".join([line] * (splitting.MAX_ITEMS + 1))),
    ):
        answer = await post(api, body, media)
        assert (answer.status, answer.problem()["code"]) == (413, "too_many_items")
    assert db.execute("SELECT count(*) AS n FROM runs").fetchone() == {"n": 0}


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.parametrize("media", [JSON, NDJSON], ids=["json", "ndjson"])
@pytest.mark.parametrize("pack", ["plain", "gzip", "zstd"])
async def test_more_than_64_mib_unpacked_is_413_and_costs_little(
    api: Api, pack: str, media: tuple[bytes, bytes]
) -> None:
    async def plain() -> AsyncIterator[bytes]:
        for _ in range(1200):
            yield b" " * 65536

    async def packed() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    body = b"" if pack == "plain" else bomb(pack, 160)  # before the measure: packing is not the service's cost
    headers = [media] if pack == "plain" else [media, (b"content-encoding", pack.encode())]
    before = peak_bytes()
    answer = await call(api.app, "POST", BATCH, headers=headers, chunks=plain() if pack == "plain" else packed())
    assert (answer.status, answer.problem()["code"]) == (413, "too_large")
    assert peak_bytes() - before < 100 * MIB
    assert api.app.state.in_flight.held == 0


@pytest.mark.parametrize("declared", [b"67108865", b"9" * 5000])
async def test_body_that_announces_too_much_is_413_unread(api: Api, declared: bytes) -> None:
    answer = await call(api.app, "POST", BATCH, headers=[JSON, (b"content-length", declared)], ends="silence")
    assert (answer.status, answer.problem()["code"]) == (413, "too_large")


@pytest.mark.parametrize("declared", [b"1", b"100000", b"-1", b"x", b"\xb2", b""])
async def test_content_length_that_lies_does_no_harm(api: Api, declared: bytes) -> None:
    assert (await post(api, DOCUMENT, JSON, (b"content-length", declared))).status == 200


async def with_settings(app_url: str, check: Callable[[Api], Any], **more: Any) -> None:
    async with running(create_app(load_settings({}, auth="none", **more), app_url)) as api:
        await check(api)


async def test_body_that_pauses_too_long_is_408(app_url: str, db: Db) -> None:
    async def check(api: Api) -> None:
        for path, media in ((BATCH, JSON), (BATCH, NDJSON), ("/api/v1/clients", JSON), ("/api/v1/lineage", JSON)):
            answer = await call(api.app, "POST", path, headers=[media], chunks=[b'{"runs":['], ends="silence")
            assert (answer.status, answer.problem()["code"]) == (408, "body_timeout")
        assert api.app.state.in_flight.held == 0

    await with_settings(app_url, check, body_timeout_seconds=0.05)


async def test_caller_that_hangs_up_leaves_nothing_behind(api: Api, db: Db) -> None:
    line = json.dumps(RUN).encode() + b"\n"
    with structlog.testing.capture_logs() as events:
        for path, media, begun in (
            (BATCH, NDJSON, line * 10),
            (BATCH, JSON, DOCUMENT[:-2]),
            ("/api/v1/clients", JSON, b'{"name":"x"}'),
            ("/api/v1/lineage", JSON, b"{"),
        ):
            await call(
                api.app, "POST", path, query=b"register=1" if path == BATCH else b"", headers=[media],
                chunks=[begun], ends="http.disconnect",
            )  # fmt: skip
    assert not [e for e in events if e["log_level"] in ("error", "critical", "warning")]
    assert db.execute("SELECT count(*) AS n FROM runs").fetchone() == {"n": 0}
    assert db.execute("SELECT count(*) AS n FROM clients").fetchone() == {"n": 0}
    assert api.app.state.in_flight.held == 0


async def test_bodies_in_flight_are_bounded(app_url: str, db: Db) -> None:
    async def check(api: Api) -> None:
        release = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b" " * 900_000
            await release.wait()
            yield DOCUMENT

        first = asyncio.create_task(call(api.app, "POST", BATCH, query=b"register=1", headers=[JSON], chunks=slowly()))
        while api.app.state.in_flight.held < 900_000:  # noqa: ASYNC110 - a number, not an event
            await asyncio.sleep(0.001)
        for body, extra in ((b" " * 200_000, ()), (gzip.compress(b" " * 200_000), ((b"content-encoding", b"gzip"),))):
            answer = await post(api, body, JSON, *extra)
            assert (answer.status, answer.problem()["code"]) == (503, "overloaded")
            assert int(answer.headers[b"retry-after"]) >= 1
        assert (await post(api, DOCUMENT)).status == 200
        release.set()
        assert (await first).status == 200
        assert api.app.state.in_flight.held == 0

    await with_settings(app_url, check, max_bytes_in_flight=MIB)


def test_reservation_gives_back_what_it_took() -> None:
    in_flight = InFlight(10)
    with Reservation(in_flight) as held:
        held.take(7)
        assert in_flight.held == 7
    assert in_flight.held == 0

"""Queries, paths, headers and methods that make no sense: refused in the one shape, never a 500."""

import base64
import json
from typing import Any

import psycopg
import pytest

from headway.core import paging
from tests.api import PROBLEM, Api
from tests.contract.asgi import call

Db = psycopg.Connection[dict[str, Any]]
NOWHERE = "00000000-0000-0000-0000-000000000000"
LISTS = [
    "/clients",
    "/pipelines",
    "/runs",
    "/alert_rules",
    "/health/failing",
    "/health/changes",
    "/health/flaky",
    "/health/late",
]
WINDOWED = ["/runs", "/health/timeseries", "/clients/acme/runs/summary"]


@pytest.mark.parametrize("path", LISTS)
async def test_paging_parameters_are_checked(api: Api, path: str) -> None:
    for query, pointer, code in (
        ("limit=0", "/query/limit", "out_of_range"),
        ("limit=1001", "/query/limit", "out_of_range"),
        ("limit=x", "/query/limit", "invalid_type"),
        ("limit=", "/query/limit", "invalid_type"),
        ("limit=1.5", "/query/limit", "invalid_type"),
        ("limit=" + "9" * 5000, "/query/limit", None),
        ("cursor=x", "/query/cursor", "invalid_cursor"),
        ("cursor=", "/query/cursor", "invalid_cursor"),
        ("cursor=%00", "/query/cursor", "invalid_cursor"),
        ("cursor=%FF", "/query/cursor", "invalid_cursor"),
        ("cursor=bnVsbA", "/query/cursor", "invalid_cursor"),
        ("cursor=" + "x" * 9000, "/query/cursor", "too_long"),
        (f"cursor={paging.encode('other', ['x'])}", "/query/cursor", "cursor_mismatch"),
        ("nope=1", "/query/nope", "unknown_parameter"),
        ("Limit=1", "/query/Limit", "unknown_parameter"),
        ("no%00pe=1", "/query/no?pe", "unknown_parameter"),
        ("%FF=1", "/query/\ufffd", "unknown_parameter"),
    ):
        response = await api.get(f"{path}?{query}")
        assert (response.status_code, response.headers["content-type"]) == (422, PROBLEM), (query[:50], response.text)
        (error,) = response.json()["errors"]
        assert error["pointer"] == pointer
        assert code in (None, error["code"]), (query[:50], error)


async def test_cursor_of_other_filters_is_refused_and_of_another_limit_is_not(api: Api) -> None:
    for name in ("a", "b", "c"):
        await api.make_client(name)
    cursor = (await api.get("/clients?limit=1")).json()["next_cursor"]
    assert (await api.get(f"/clients?limit=2&cursor={cursor}")).status_code == 200
    for path in (
        f"/clients?q=a&cursor={cursor}",
        f"/clients?is_active=false&cursor={cursor}",
        f"/runs?cursor={cursor}",
    ):
        response = await api.get(path)
        assert (response.status_code, response.json()["code"]) == (422, "cursor_mismatch")


async def test_forged_sort_keys_in_a_cursor_are_refused(api: Api) -> None:
    asked = paging.question("clients", is_active=True, tag=None, q=None)
    for key in (
        ["a\0", NOWHERE],
        ["\ud800", NOWHERE],
        ["a", "x"],
        [1, NOWHERE],
        ["a"],
        ["a", NOWHERE, 1],
        [None, None],
    ):
        cursor = base64.urlsafe_b64encode(json.dumps([asked, *key]).encode()).decode()
        response = await api.get(f"/clients?cursor={cursor.rstrip('=')}")
        assert (response.status_code, response.json()["code"]) == (422, "invalid_cursor"), key


@pytest.mark.parametrize("path", WINDOWED)
async def test_windows_are_checked(api: Api, path: str) -> None:
    await api.make_client("acme")
    for query, pointer, code in (
        ("since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", "/query/until", "empty_window"),
        ("since=2026-01-02T00:00:00Z&until=2026-01-02T00:00:00Z", "/query/until", "empty_window"),
        ("since=2026-01-02T00:00:00Z&until=2026-01-02T01:00:00%2B02:00", "/query/until", "empty_window"),
        ("since=2026-01-02T00:00:00", "/query/since", "time_without_offset"),
        ("until=2026-01-02", "/query/until", "invalid_time"),
        ("until=1767225600", "/query/until", "invalid_time"),
        ("since=", "/query/since", "invalid_time"),
        ("since=%00", "/query/since", "invalid_time"),
        ("since=1969-12-31T23:59:59Z", "/query/since", "time_out_of_range"),
        ("since=0001-01-01T00:00:00%2B23:59", "/query/since", "invalid_time"),
    ):
        response = await api.get(f"{path}?{query}")
        assert response.status_code == 422, (query, response.text)
        assert (response.json()["errors"][0]["pointer"], response.json()["errors"][0]["code"]) == (pointer, code), query


@pytest.mark.parametrize("path", [*WINDOWED, "/health/changes"])
async def test_windows_at_the_ends_of_time_are_answered(api: Api, path: str) -> None:
    await api.make_client("acme")
    for query in (
        "since=1970-01-01T00:00:00Z",
        "until=1970-01-01T00:00:00Z",
        "since=9999-12-31T23:59:59Z",
        "until=9999-12-31T23:59:59.999999Z",
        "since=1970-01-01T00:00:00Z&until=9999-12-31T23:59:59Z",
    ):
        response = await api.get(f"{path}?{query}")
        assert response.status_code in (200, 422), (query, response.text)


async def test_filters_are_checked(api: Api) -> None:
    for query, code in (
        ("/runs?status=nope", "unknown_value"),
        ("/runs?environment=live", "unknown_value"),
        ("/runs?order=up", "invalid_format"),
        ("/runs?platform=", "too_short"),
        ("/runs?platform=%00", "nul_character"),
        ("/runs?external_run_id=a%00b", "nul_character"),
        ("/runs?client=%00", "nul_character"),
        ("/runs?client=" + "x" * 513, "too_long"),
        ("/clients?q=%00", "nul_character"),
        ("/clients?tag=%00", "nul_character"),
        ("/clients?is_active=maybe", "invalid_type"),
        ("/pipelines?slug=%00", "nul_character"),
        ("/pipelines?pipeline_type=x", "unknown_value"),
        ("/alert_rules?pipeline=x", "invalid_uuid"),
        ("/alert_rules?rule_type=x", "unknown_value"),
        ("/health/flaky?days=0", "out_of_range"),
        ("/health/flaky?days=" + "9" * 30, "out_of_range"),
        ("/health/timeseries?bucket=minute", "unknown_value"),
        ("/health/failing?platform=%00", "nul_character"),
    ):
        response = await api.get(query)
        assert response.status_code == 422, (query, response.text)
        assert response.json()["errors"][0]["code"] == code, (query[:50], response.text)
    for query in ("/runs?platform=%FF", "/clients?q=%FF%25_\\", "/clients?tag=%ED%A0%80", "/pipelines?q=" + "x" * 512):
        assert (await api.get(query)).status_code == 200, query
    for path in ("/runs", "/pipelines", "/alert_rules", "/health/late"):
        assert (await api.get(f"{path}?client=%FF")).status_code == 404


SEGMENTS = [
    "%00",
    "a%00b",
    "%FF",
    "%ED%A0%80",
    "%C0%80",
    "%F0%9F%98%80",
    "x" * 10_000,
    "..%2F..",
    "%2e%2e",
    "'; DROP TABLE runs",
    "a b",
    "{}",
    "None",
    "-1",
    "urn:uuid:00000000-0000-0000-0000-000000000000",
    "00000000000000000000000000000000",
]
PLACES = [
    ("GET", "/clients/{}"),
    ("DELETE", "/clients/{}"),
    ("POST", "/clients/{}/ping_key"),
    ("GET", "/clients/{}/pipelines"),
    ("GET", "/clients/{}/runs/summary"),
    ("GET", "/pipelines/{}"),
    ("DELETE", "/pipelines/{}"),
    ("GET", "/pipelines/{}/runs"),
    ("GET", "/pipelines/{}/runs/latest"),
    ("GET", "/runs/{}"),
    ("GET", "/runs/{}/events"),
    ("GET", "/alert_rules/{}"),
    ("DELETE", "/alert_rules/{}"),
    ("GET", "/nothing/{}"),
]


@pytest.mark.parametrize("segment", SEGMENTS, ids=lambda s: s[:20])
async def test_segments_of_a_path_that_name_nothing_are_404_or_422(api: Api, segment: str) -> None:
    for method, place in PLACES:
        response = await api.request(method, place.format(segment))
        assert response.status_code in (404, 422), (place, response.text)
        assert response.headers["content-type"] == PROBLEM
    for method, place, body in (
        ("PATCH", "/clients/{}", {"name": "x"}),
        ("POST", "/clients/{}/pipelines", {"name": "x", "platform": "p"}),
        ("PUT", "/clients/acme/pipelines/{}", {"name": "x", "platform": "p"}),
        ("PATCH", "/pipelines/{}", {"name": "x"}),
        ("POST", "/pipelines/{}/runs", {"status": "success"}),
    ):
        response = await api.request(method, place.format(segment), json=body)
        assert response.status_code in (404, 422), (place, response.text)
    response = await api.post(f"/in/{segment}/api/v1/lineage", json={})
    assert response.status_code in (200, 404, 422), response.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/nope", 404, "not_found"),
        ("GET", "/api/v1", 404, "not_found"),
        ("GET", "/api/v1/", 404, "not_found"),
        ("GET", "/api/v1/nope", 404, "not_found"),
        ("GET", "/api/v1/clients/", 404, "not_found"),
        ("GET", "//api/v1/clients", 404, "not_found"),
        ("GET", "/api//v1/clients", 404, "not_found"),
        ("GET", "/api/v1/clients//pipelines", 404, "not_found"),
        ("GET", "//evil.example/api/v1/clients/", 404, "not_found"),
        ("GET", "/API/v1/clients", 404, "not_found"),
        ("GET", "/api/v1/\udcff\ud800", 404, "not_found"),
        ("GET", "/api/v1/clients/\ud800", 404, "client_not_found"),
        ("GET", "/api/v1/clients/a\0", 404, "not_found"),
        ("PUT", "/api/v1/clients", 405, "method_not_allowed"),
        ("POST", "/api/v1/runs", 405, "method_not_allowed"),
        ("GET", "/api/v1/lineage", 405, "method_not_allowed"),
        ("DELETE", "/healthz", 405, "method_not_allowed"),
        ("OPTIONS", "/api/v1/clients", 405, "method_not_allowed"),
        ("HEAD", "/api/v1/clients", 405, "method_not_allowed"),
        ("TRACE", "/api/v1/clients", 405, "method_not_allowed"),
        ("PROPFIND", "/api/v1/clients", 405, "method_not_allowed"),
        ("get", "/api/v1/clients", 405, "method_not_allowed"),
        ("\0", "/api/v1/clients", 405, "method_not_allowed"),
    ],
)
async def test_nothing_there_is_a_problem_document(api: Api, method: str, path: str, status: int, code: str) -> None:
    answer = await call(api.app, method, path)
    assert (answer.status, answer.problem()["code"]) == (status, code)
    if status == 405:
        assert answer.headers[b"allow"]


@pytest.mark.parametrize("path", ["/api/v1/nope", "/api/v1", "/api/v1/clients/", "/in/acme/nope"])
async def test_nothing_there_asks_for_a_key_first(keyed: Api, path: str) -> None:
    if path == "/api/v1":
        assert (await call(keyed.app, "GET", path)).status == 401
        return
    for method in ("GET", "POST", "PROPFIND"):
        answer = await call(keyed.app, method, path)
        assert (answer.status, answer.problem()["code"]) == (401, "key_missing")
    assert (await call(keyed.app, "PUT", "/api/v1/clients")).status == 401
    assert (await call(keyed.app, "GET", "/nope")).status == 404


async def test_nothing_there_is_not_told_to_other_hosts(api: Api) -> None:
    response = await api.get("/nope", headers={"Host": "evil.example"})
    assert (response.status_code, response.json()["code"]) == (403, "host_not_local")
    response = await api.get("/nope", headers={"X-Forwarded-For": "192.0.2.1"})
    assert (response.status_code, response.json()["code"]) == (403, "proxied")


HEADERS = [
    (b"authorization", b"\xff\xfe"),
    (b"authorization", b"Bearer \xff" + b"x" * 10_000),
    (b"authorization", b""),
    (b"x-request-id", b"\xff\r\n"),
    (b"cookie", b"\xff\0"),
    (b"accept", b"\xff"),
    (b"accept-encoding", b"\xff"),
    (b"content-type", b"\xff"),
    (b"content-length", b"\xb2"),
    (b"transfer-encoding", b"\xff"),
    (b"\xff\xfe", b"x"),
    (b"", b""),
    (b"range", b"bytes=\xff"),
    (b"idempotency-key", b"\xff\0"),
]


@pytest.mark.parametrize("header", HEADERS, ids=str)
async def test_headers_of_any_bytes_do_no_harm(api: Api, keyed: Api, header: tuple[bytes, bytes]) -> None:
    assert (await call(api.app, "GET", "/api/v1/clients", headers=[header])).status == 200
    assert (await call(keyed.app, "GET", "/api/v1/clients", headers=[header])).problem()["status"] == 401
    pipeline = await api.make_pipeline()
    answer = await call(
        api.app,
        "POST",
        f"/api/v1/pipelines/{pipeline['id']}/runs",
        headers=[header, (b"content-type", b"application/json")],
        chunks=[b'{"status":"success"}'],
    )
    assert answer.status in (201, 415, 422), answer.body


@pytest.mark.parametrize("host", [b"localhost:\xb2", b"", b"localhost.evil.example", b"\xff", b"[::1]:80:80", b"127.1"])
async def test_only_local_hosts_are_served_without_keys(api: Api, host: bytes) -> None:
    answer = await call(api.app, "GET", "/api/v1/clients", headers=[(b"host", host)])
    assert answer.status in (200, 403)  # the first Host counts, which the test client has sent already
    scope_hosts = await api.get("/clients", headers={"Host": host.decode("latin-1")}) if host.isascii() else None
    assert scope_hosts is None or scope_hosts.status_code == 403


@pytest.mark.parametrize("query", [b"\xff=\xff", b"%", b"%%%", b"&&&", b"=&=", b"limit=%31", b"a" * 100_000, b"\0"])
async def test_query_strings_of_any_bytes_do_no_harm(api: Api, query: bytes) -> None:
    assert (await call(api.app, "GET", "/api/v1/clients", query=query)).status in (200, 422)

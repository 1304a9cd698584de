"""Nothing a caller can send makes a 500, and every refusal says where and why.

Bad items of a batch are rejected alone, with the good ones beside them stored; the same on the door for single runs is
422. No answer repeats the value that it refuses: those here carry a marker, which must never come back.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from headway.core import validation
from headway.runs import parsing
from tests.api import PROBLEM, Api

Db = psycopg.Connection[dict[str, Any]]

MARKER = "zqmarkerqz"
REF = {"client": "acme", "name": "daily", "platform": "airflow"}
JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}


def ahead(**span: float) -> str:
    return validation.format_time(datetime.now(UTC) + timedelta(**span))


def item(number: int = 1, /, **fields: str) -> str:
    """Return the JSON of an observation in which some fields are raw JSON; an empty one is left out."""
    usual = {"pipeline": json.dumps(REF), "external_run_id": f'"run-{number}"', "status": '"success"'}
    members = {name: text for name, text in (usual | fields).items() if text}
    return "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in members.items()) + "}"


# Fields as raw JSON, where it must be pointed at, with which code.
BAD_FIELDS: list[tuple[dict[str, str], str, str]] = [
    # what no column takes
    ({"error_message": rf'"{MARKER}\u0000"'}, "/error_message", "nul_character"),
    ({"status_reason": rf'"{MARKER}\u0000"'}, "/status_reason", "nul_character"),
    ({"external_run_id": rf'"{MARKER}\u0000"'}, "/external_run_id", "nul_character"),
    ({"url": rf'"http://h/{MARKER}\u0000"'}, "/url", "nul_character"),
    ({"payload": rf'{{"a":{{"b":["{MARKER}\u0000"]}}}}'}, "/payload/a/b/0", "nul_character"),
    ({"payload": r'{"a\u0000":1}'}, "/payload/a?", "nul_character"),
    ({"payload": r'{"a":{"\u0000":1}}'}, "/payload/a/?", "nul_character"),
    ({"error_message": rf'"{MARKER}\ud800"'}, "/error_message", "lone_surrogate"),
    ({"external_run_id": rf'"\udfff{MARKER}"'}, "/external_run_id", "lone_surrogate"),
    ({"payload": rf'{{"a":"{MARKER}\udc00x"}}'}, "/payload/a", "lone_surrogate"),
    ({"payload": r'{"\ud800":1}'}, "/payload/?", "lone_surrogate"),
    ({"payload": '{"a":9223372036854775808}'}, "/payload/a", "out_of_range"),
    ({"payload": '{"a":-9223372036854775809}'}, "/payload/a", "out_of_range"),
    ({"payload": '{"a":' + "9" * 5000 + "}"}, "/payload/a", "out_of_range"),
    ({"payload": '{"a":1e400}'}, "/payload/a", "not_a_number"),
    ({"payload": '{"a":[NaN]}'}, "/payload/a/0", "not_a_number"),
    ({"payload": '{"a":-Infinity}'}, "/payload/a", "not_a_number"),
    ({"payload": '{"a/b~c":NaN}'}, "/payload/a~1b~0c", "not_a_number"),
    ({"attempt": "NaN"}, "/attempt", "not_a_number"),
    ({"rows_processed": "1e400"}, "/rows_processed", "not_a_number"),
    # strict types
    ({"attempt": '"2"'}, "/attempt", "invalid_type"),
    ({"attempt": "2.0"}, "/attempt", "invalid_type"),
    ({"attempt": "true"}, "/attempt", "invalid_type"),
    ({"rows_processed": f'"{MARKER}"'}, "/rows_processed", "invalid_type"),
    ({"external_run_id": "7"}, "/external_run_id", "invalid_type"),
    ({"error_message": f'["{MARKER}"]'}, "/error_message", "invalid_type"),
    ({"payload": f'["{MARKER}"]'}, "/payload", "invalid_type"),
    ({"payload": f'"{MARKER}"'}, "/payload", "invalid_type"),
    ({"status": "7"}, "/status", "unknown_value"),
    ({"status": f'"{MARKER}"'}, "/status", "unknown_value"),
    ({"status": '"Success"'}, "/status", "unknown_value"),
    # numbers
    ({"attempt": "0"}, "/attempt", "out_of_range"),
    ({"attempt": "-1"}, "/attempt", "out_of_range"),
    ({"attempt": "2147483648"}, "/attempt", "out_of_range"),
    ({"attempt": "9" * 5000}, "/attempt", "out_of_range"),
    ({"rows_processed": "-1"}, "/rows_processed", "out_of_range"),
    ({"rows_processed": "9223372036854775808"}, "/rows_processed", "out_of_range"),
    # times
    ({"started_at": "1767225600"}, "/started_at", "invalid_type"),
    ({"started_at": "1767225600.5"}, "/started_at", "invalid_type"),
    ({"finished_at": '"1767225600"'}, "/finished_at", "invalid_time"),
    ({"observed_at": f'"{MARKER}"'}, "/observed_at", "invalid_time"),
    ({"observed_at": '""'}, "/observed_at", "invalid_time"),
    ({"scheduled_for": '"2026-01-01"'}, "/scheduled_for", "invalid_time"),
    ({"started_at": '"2026-02-30T00:00:00Z"'}, "/started_at", "invalid_time"),
    ({"started_at": '"0001-01-01T00:00:00+23:59"'}, "/started_at", "invalid_time"),
    ({"started_at": '"2026-01-01T00:00:00Z\\n"'}, "/started_at", "invalid_time"),
    ({"started_at": '"2026-01-01T00:00:00"'}, "/started_at", "time_without_offset"),
    ({"started_at": '"2026-01-01 00:00:00.123"'}, "/started_at", "time_without_offset"),
    ({"started_at": '"1969-12-31T23:59:59Z"'}, "/started_at", "time_out_of_range"),
    ({"observed_at": '"1970-01-01T00:30:00+01:00"'}, "/observed_at", "time_out_of_range"),
    ({"started_at": f'"{ahead(hours=25)}"'}, "/started_at", "time_out_of_range"),
    ({"finished_at": f'"{ahead(hours=25)}"'}, "/finished_at", "time_out_of_range"),
    ({"observed_at": f'"{ahead(hours=25)}"'}, "/observed_at", "time_out_of_range"),
    ({"scheduled_for": f'"{ahead(days=367)}"'}, "/scheduled_for", "time_out_of_range"),
    ({"scheduled_for": '"9999-12-31T23:59:59-23:59"'}, "/scheduled_for", "invalid_time"),
    # texts
    ({"url": f'"ftp://h/{MARKER}"'}, "/url", "invalid_url"),
    ({"url": f'"javascript:{MARKER}"'}, "/url", "invalid_url"),
    ({"url": f'"http://{MARKER} x"'}, "/url", "invalid_url"),
    ({"url": '""'}, "/url", "invalid_url"),
    ({"url": '"http://h/' + "x" * 4096 + '"'}, "/url", "too_long"),
    ({"external_run_id": '""'}, "/external_run_id", "too_short"),
    ({"external_run_id": '"' + "x" * 513 + '"'}, "/external_run_id", "too_long"),
    # fields
    ({"statuss": f'"{MARKER}"'}, "/statuss", "unknown_field"),
    ({"source": f'"{MARKER}"'}, "/source", "unknown_field"),
    ({"a\x00b": "1"}, "/a?b", "nul_character"),
    ({"status": ""}, "/status", "missing"),
    ({"status": "null"}, "/status", "unknown_value"),
]

# What a batch alone can have wrong: an item names its pipeline.
BAD_ITEMS: list[tuple[str, str, str]] = [
    ("5", "", "invalid_type"),
    ("null", "", "invalid_type"),
    (f'"{MARKER}"', "", "invalid_type"),
    ("[]", "", "invalid_type"),
    ("{}", "/status", "missing"),
    (item(external_run_id=""), "/external_run_id", "missing"),
    (item(external_run_id="null"), "/external_run_id", "invalid_type"),
    (item(pipeline=""), "/pipeline_id", "missing"),
    (item(pipeline="null", pipeline_id="null"), "/pipeline_id", "missing"),
    (item(pipeline_id='"00000000-0000-0000-0000-000000000000"'), "/pipeline", "ambiguous_pipeline"),
    (item(pipeline="", pipeline_id=f'"{MARKER}"'), "/pipeline_id", "invalid_uuid"),
    (item(pipeline="", pipeline_id='"00000000-0000-0000-0000-000000000000"'), "/pipeline_id", "unknown_pipeline"),
    (item(pipeline=f'"{MARKER}"'), "/pipeline", "invalid_type"),
    (item(pipeline='{"client":"acme","name":"x"}'), "/pipeline/platform", "missing"),
    (item(pipeline='{"client":"ACME","name":"x","platform":"p"}'), "/pipeline/client", "invalid_format"),
    (item(pipeline='{"client":"acme","name":"x","platform":"P"}'), "/pipeline/platform", "invalid_format"),
    (item(pipeline='{"client":"acme","name":"","platform":"p"}'), "/pipeline/name", "too_short"),
    (item(pipeline=r'{"client":"acme","name":"\u0000","platform":"p"}'), "/pipeline/name", "nul_character"),
    (
        item(pipeline='{"client":"acme","name":"x","platform":"p","environment":"live"}'),
        "/pipeline/environment",
        "invalid_format",
    ),
    (item(pipeline='{"client":"acme","name":"x","platform":"p","nam":1}'), "/pipeline/nam", "unknown_field"),
]


def _label(value: object) -> str:
    return str(value)[:60].replace("\0", "?")


@pytest.mark.parametrize("headers", [JSON, NDJSON], ids=["json", "ndjson"])
async def test_bad_items_are_rejected_alone_with_pointer_and_code(api: Api, db: Db, headers: dict[str, str]) -> None:
    bad = [(item(n, **fields), pointer, code) for n, (fields, pointer, code) in enumerate(BAD_FIELDS)] + BAD_ITEMS
    items = [text for n, (raw, _, _) in enumerate(bad) for text in (item(10_000 + n), raw)]
    body = "\n".join(items) if headers is NDJSON else '{"runs":[' + ",".join(items) + "]}"
    response = await api.post("/runs/batch?register=true", content=body.encode(), headers=headers)
    assert response.status_code == 200, response.text
    assert MARKER not in response.text
    result = response.json()
    found = {e["index"]: (e["pointer"], e["code"]) for e in reversed(result["errors"])}
    wanted = {2 * n + 1: (f"/runs/{2 * n + 1}{pointer}", code) for n, (_, pointer, code) in enumerate(bad)}
    assert found == wanted
    assert (result["received"], result["inserted"], result["rejected"]) == (2 * len(bad), len(bad), len(bad))
    assert db.execute("SELECT count(*) AS n FROM runs").fetchone() == {"n": len(bad)}


# Numbered: some values hold the time, and a name must be the same in every process that runs the tests.
@pytest.mark.parametrize(
    ("fields", "pointer", "code"), BAD_FIELDS, ids=[f"{n}{b[1]}" for n, b in enumerate(BAD_FIELDS)]
)
async def test_single_run_is_refused_with_pointer_and_code(
    api: Api, db: Db, fields: dict[str, str], pointer: str, code: str
) -> None:
    pipeline = await api.make_pipeline()
    body = item(pipeline="", **fields)
    response = await api.post(f"/pipelines/{pipeline['id']}/runs", content=body.encode(), headers=JSON)
    assert response.status_code == 422, response.text
    assert MARKER not in response.text
    assert (pointer, code) in {(e["pointer"], e["code"]) for e in response.json()["errors"]}
    assert db.execute("SELECT count(*) AS n FROM runs").fetchone() == {"n": 0}


async def test_what_just_fits_is_taken(api: Api, db: Db) -> None:
    fits = [
        {"attempt": "1"},
        {"attempt": "2147483647"},
        {"rows_processed": "0"},
        {"rows_processed": "9223372036854775807"},
        {"external_run_id": '"x"'},
        {"external_run_id": json.dumps("\U0001f600" * 512)},
        {"started_at": '"1970-01-01T00:00:00Z"'},
        {"started_at": f'"{ahead(hours=23)}"'},
        {"scheduled_for": f'"{ahead(days=364)}"'},
        {"started_at": '"2026-01-01t00:00:00.123456789+05:30"'},
        {"payload": '{"a":[9223372036854775807,-9223372036854775808,1e308]}'},
        {"url": '"HTTPS://h:8443/x?y=%20#z"'},
        {"error_message": r'"\ud83d\ude00 \u0001\b"'},
    ]
    body = '{"runs":[' + ",".join(item(n, **fields) for n, fields in enumerate(fits)) + "]}"
    response = await api.post("/runs/batch?register=true", content=body.encode(), headers=JSON)
    assert (response.json()["inserted"], response.json()["errors"]) == (len(fits), [])


async def test_null_is_absent_and_the_last_of_duplicate_keys_counts(api: Api, db: Db) -> None:
    optional = set(parsing.ObservationBody.model_fields) - {"status"}
    items = (
        item(1, **(dict.fromkeys(optional, "null") | {"pipeline_id": "null"})),
        item(2)[:-1] + r',"error_message":"\u0000","status":"running","status":"failed","error_message":"ok"}',
        item(3)[:-1] + r',"error_message":"ok","error_message":"\u0000"}',
    )
    body = '{"runs":[' + ",".join(items) + "]}"
    response = await api.post("/runs/batch?register=true", content=body.encode(), headers=JSON)
    assert [(e["index"], e["code"]) for e in response.json()["errors"]] == [(2, "nul_character")]
    rows = db.execute("SELECT status, attempt, error_message FROM runs ORDER BY external_run_id").fetchall()
    assert rows == [
        {"status": "success", "attempt": 1, "error_message": None},
        {"status": "failed", "attempt": 1, "error_message": "ok"},
    ]


async def test_over_long_error_message_is_cut_between_characters(api: Api, db: Db) -> None:
    pipeline = await api.make_pipeline()
    texts = {"a": "x" + "é" * 10_000, "b": "x" * 8192, "c": "\U0001f600" * 300_000}
    await api.report(
        *(
            {"pipeline_id": pipeline["id"], "external_run_id": key, "status": "failed", "error_message": text}
            for key, text in texts.items()
        )
    )
    rows = db.execute("SELECT error_message FROM runs ORDER BY external_run_id").fetchall()
    stored = [row["error_message"] for row in rows]
    assert stored == ["x" + "é" * 4095, "x" * 8192, "\U0001f600" * 2048]


@pytest.mark.parametrize("size", [70_000, 3_000_000])
async def test_over_large_payload_is_replaced_with_a_marker(api: Api, size: int) -> None:
    pipeline = await api.make_pipeline()
    run = {"external_run_id": "x", "status": "success", "payload": {"a": "x" * size}}
    assert (await api.report(run | {"pipeline_id": pipeline["id"]}))["inserted"] == 1
    (stored,) = (await api.get("/runs")).json()["items"]
    assert stored["payload"]["headway_truncated"] is True
    assert stored["payload"]["size_bytes"] >= size


# A whole document: body, status, code.
DOCUMENTS: list[tuple[bytes, int, str]] = [
    (b"", 400, "invalid_json"),
    (b" ", 400, "invalid_json"),
    (MARKER.encode(), 400, "invalid_json"),
    (b'\xef\xbb\xbf{"runs":[]}', 400, "invalid_json"),
    ('{"runs":[]}'.encode("utf-16"), 400, "invalid_json"),
    (b'{"runs":["\xff"]}', 400, "invalid_json"),
    (b'{"\xff":1}', 400, "invalid_json"),
    (b"{", 400, "invalid_json"),
    (b'{"runs"', 400, "invalid_json"),
    (b'{"runs":[', 400, "invalid_json"),
    (b'{"runs":[{"status":"', 400, "invalid_json"),
    (b'{"runs":[]', 400, "invalid_json"),
    (b'{"runs":[]}x', 400, "invalid_json"),
    (b'{"runs":[]}{"runs":[]}', 400, "invalid_json"),
    (b'{"runs":[]]}', 400, "invalid_json"),
    (b'{"runs":[],}', 400, "invalid_json"),
    (b'{"runs":[{},]}', 400, "invalid_json"),
    (b'{"runs":[,{}]}', 400, "invalid_json"),
    (b'{"runs":[{} {}]}', 400, "invalid_json"),
    (b'{"runs":[{}}', 400, "invalid_json"),
    (b'{"runs":[tru]}', 400, "invalid_json"),
    (b'{"runs":\x0b[]}', 400, "invalid_json"),
    (b"{'runs':[]}", 400, "invalid_json"),
    (b'{"runs":[{"status":"a\nb"}]}', 400, "invalid_json"),
    (b'{"runs":[],"x":tru}', 400, "invalid_json"),
    (b"[]", 422, "invalid_type"),
    (b"null", 422, "invalid_type"),
    (b'"' + MARKER.encode() + b'"', 422, "invalid_type"),
    (b"[" + b"1," * 1_000_000 + b"1]", 422, "invalid_type"),
    (b"{}", 422, "missing"),
    (b'{"x":1}', 422, "unknown_field"),
    (b'{"runs":{}}', 422, "invalid_type"),
    (b'{"runs":null}', 422, "invalid_type"),
    (b'{"runs":"' + MARKER.encode() + b'"}', 422, "invalid_type"),
    (b'{"runs":[],"x":1}', 422, "unknown_field"),
    (b'{"x":{"y":[1]},"runs":[]}', 422, "unknown_field"),
    (b'{"x":"' + b"y" * 2_000_000 + b'","runs":[]}', 422, "unknown_field"),
    (b'{"runs":[],"runs":[]}', 422, "duplicate_field"),
    (b'{"runs":[],"\\ud800":[]}', 422, "unknown_field"),
    (b'{"runs":[{"payload":{"a":' + b"[" * 100 + b"]" * 100 + b"}}]}", 400, "too_deep"),
    (b"[" * 65 + b"]" * 65, 400, "too_deep"),
    (b'{"runs":[' + b'{"a":' * 100_000, 400, "too_deep"),
]


@pytest.mark.parametrize(("body", "status", "code"), DOCUMENTS, ids=_label)
async def test_document_of_another_form_is_refused_as_a_whole(
    api: Api, db: Db, body: bytes, status: int, code: str
) -> None:
    good = item().encode()
    for sent in {body, body.replace(b'"runs":[]', b'"runs":[' + good + b"]")}:
        response = await api.post("/runs/batch?register=true", content=sent, headers=JSON)
        problem = response.json()
        assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM)
        codes = {e["code"] for e in problem.get("errors", [])} or {problem["code"]}
        assert code in codes
        assert MARKER not in response.text
    assert db.execute("SELECT count(*) AS n FROM runs").fetchone() == {"n": 0}


async def test_nesting_is_counted_from_the_document(api: Api) -> None:
    def body(levels: int) -> bytes:
        inner = "[" * levels + "]" * levels
        return ('{"runs":[' + item(payload='{"a":' + inner + "}") + "]}").encode()

    deepest = validation.MAX_DEPTH - 4  # the document, its list, the item, the payload
    assert (await api.post("/runs/batch?register=1", content=body(deepest), headers=JSON)).json()["inserted"] == 1
    response = await api.post("/runs/batch?register=1", content=body(deepest + 1), headers=JSON)
    assert (response.status_code, response.json()["code"]) == (400, "too_deep")


async def test_line_that_is_nested_too_deep_is_rejected_alone(api: Api) -> None:
    lines = "\n".join((item(1), item(2, payload='{"a":' + "[" * 64 + "]" * 64 + "}"), item(3)))
    response = await api.post("/runs/batch?register=1", content=lines.encode(), headers=NDJSON)
    result = response.json()
    assert (result["inserted"], [(e["index"], e["code"]) for e in result["errors"]]) == (2, [(1, "too_deep")])


async def test_key_written_with_escapes_is_the_same_key(api: Api) -> None:
    body = (r'{"r\u0075ns":[' + item() + "]}").encode()
    assert (await api.post("/runs/batch?register=1", content=body, headers=JSON)).json()["inserted"] == 1


async def test_small_bodies_are_checked_alike(api: Api) -> None:
    cases = [
        (rf'{{"name":"{MARKER}\u0000"}}', 422, "/name", "nul_character"),
        (rf'{{"name":"{MARKER}\ud800"}}', 422, "/name", "lone_surrogate"),
        (r'{"name":"x","a\u0000":1}', 422, "/a?", "nul_character"),
        ('{"name":' + "9" * 5000 + "}", 422, "/name", "out_of_range"),
        ('{"name":NaN}', 422, "/name", "not_a_number"),
        ('{"name":7}', 422, "/name", "invalid_type"),
        (f'{{"name":"x","tags":"{MARKER}"}}', 422, "/tags", "invalid_type"),
        (f'{{"name":"x","tags":["{"x" * 101}"]}}', 422, "/tags/0", "too_long"),
        (f'{{"name":"x","slug":"{MARKER}!"}}', 422, "/slug", "invalid_format"),
        ('{"name":"x","nmae":"x"}', 422, "/nmae", "unknown_field"),
        ('{"name":null}', 422, "/name", "invalid_type"),
        ("{}", 422, "/name", "missing"),
        ("[]", 422, "", "invalid_type"),
        ("null", 422, "", None),
        (MARKER, 400, None, "invalid_json"),
        ("", 400, None, "invalid_json"),
        ("[" * 65 + "]" * 65, 400, None, "too_deep"),
        ("[" * 500_000, 400, None, "too_deep"),
        ('{"name":"' + "x" * 1_100_000 + '"}', 413, None, "too_large"),
        ('{"a":[' + "NaN," * 200_000 + "1]}", 422, None, "not_a_number"),
    ]
    for body, status, pointer, code in cases:
        response = await api.post("/clients", content=body.encode(), headers=JSON)
        problem = response.json()
        assert response.status_code == status, (body[:80], response.text[:300])
        assert MARKER not in response.text
        assert len(response.content) < 50_000
        errors = problem.get("errors") or [{"pointer": None, "code": problem["code"]}]
        if pointer is not None:
            assert pointer in {e["pointer"] for e in errors}, (body[:80], errors)
        if code is not None:
            assert code in {e["code"] for e in errors}, (body[:80], errors)


async def test_mistakes_beyond_the_first_are_counted_not_listed(api: Api, db: Db) -> None:
    broken = item(payload='{"a":[' + "NaN," * 5000 + "1]}")
    body = ('{"runs":[' + ",".join([broken] * 20 + ["5"] * 3000) + "]}").encode()
    result = (await api.post("/runs/batch", content=body, headers=JSON)).json()
    assert result["rejected"] == 3020
    assert len({e["index"] for e in result["errors"]}) == 1000
    assert len(result["errors"]) <= 20 * validation.MAX_ISSUES + 1000

"""The batch door, through HTTP, with what it leaves in the tables."""

import gzip
import json
from typing import Any

import psycopg
import zstandard

from tests.api import Api

Db = psycopg.Connection[dict[str, Any]]
REF = {"client": "acme", "name": "daily", "platform": "airflow"}


def run(number: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "pipeline": REF,
        "external_run_id": f"run-{number}",
        "status": "success",
        "finished_at": "2026-11-01T06:00:00Z",
    } | more


async def test_new_runs_are_stored_and_a_replay_changes_nothing(api: Api, db: Db) -> None:
    first = await api.report(run(1), run(2), register=True)
    assert first == {"received": 2, "inserted": 2, "updated": 0, "unchanged": 0, "rejected": 0, "errors": []}
    before = db.execute("SELECT * FROM runs ORDER BY id").fetchall()
    again = await api.report(run(1), run(2))
    assert again == {"received": 2, "inserted": 0, "updated": 0, "unchanged": 2, "rejected": 0, "errors": []}
    assert db.execute("SELECT * FROM runs ORDER BY id").fetchall() == before
    assert len(db.execute("SELECT * FROM run_events").fetchall()) == 2


async def test_good_items_are_stored_beside_bad_ones(api: Api, db: Db) -> None:
    result = await api.report(
        run(1),
        run(2, started_at="2026-11-01T06:00:00"),
        run(3, status="done"),
        run(4, attempt="2"),
        {"external_run_id": "x", "status": "success"},
        run(5, url="javascript:alert(1)"),
        run(6),
        register=True,
    )
    assert (result["inserted"], result["rejected"]) == (2, 5)
    assert [(e["index"], e["pointer"], e["code"]) for e in result["errors"]] == [
        (1, "/runs/1/started_at", "time_without_offset"),
        (2, "/runs/2/status", "unknown_value"),
        (3, "/runs/3/attempt", "invalid_type"),
        (4, "/runs/4/pipeline_id", "missing"),
        (5, "/runs/5/url", "invalid_url"),
    ]
    assert {r["external_run_id"] for r in db.execute("SELECT external_run_id FROM runs")} == {"run-1", "run-6"}


async def test_unknown_pipelines_are_refused_without_register(api: Api, db: Db) -> None:
    result = await api.report(run(1))
    assert result["rejected"] == 1
    assert result["errors"][0]["code"] == "unknown_pipeline"
    assert db.execute("SELECT count(*) AS n FROM runs").fetchone() == {"n": 0}


async def test_atomic_stores_all_or_nothing(api: Api, db: Db) -> None:
    batch = {"runs": [run(1), run(2, status="done")]}
    response = await api.post("/runs/batch", json=batch, params={"register": True, "atomic": True})
    assert response.status_code == 422
    assert [e["pointer"] for e in response.json()["errors"]] == ["/runs/1/status"]
    assert db.execute("SELECT count(*) AS n FROM runs").fetchone() == {"n": 0}
    assert db.execute("SELECT count(*) AS n FROM pipelines").fetchone() == {"n": 0}


async def test_items_of_one_run_are_joined_and_each_is_counted_once(api: Api, db: Db) -> None:
    started = run(1, status="running", finished_at=None, started_at="2026-11-01T05:00:00Z")
    result = await api.report(started, run(1), run(1), register=True)
    assert result == {"received": 3, "inserted": 1, "updated": 0, "unchanged": 2, "rejected": 0, "errors": []}
    (row,) = db.execute("SELECT status, started_at IS NOT NULL AS started FROM runs").fetchall()
    assert row == {"status": "success", "started": True}
    assert db.execute("SELECT count(*) AS n FROM run_events").fetchone() == {"n": 2}


async def test_run_of_which_only_the_history_changed_counts_as_updated(api: Api) -> None:
    await api.report(run(1), register=True)
    late_start = run(1, status="queued", finished_at=None, observed_at="2026-11-01T04:00:00Z")
    assert (await api.report(late_start))["updated"] == 1
    assert (await api.report(late_start))["unchanged"] == 1


async def test_ndjson_gzip_and_zstd_are_taken(api: Api) -> None:
    lines = b"\n".join(json.dumps(run(n)).encode() for n in range(5)) + b"\n\n"
    for encoding, packed in (("gzip", gzip.compress(lines)), ("zstd", zstandard.compress(lines)), ("identity", lines)):
        response = await api.post(
            "/runs/batch?register=true",
            content=packed,
            headers={"Content-Type": "application/x-ndjson", "Content-Encoding": encoding},
        )
        assert response.status_code == 200, response.text
        assert response.json()["received"] == 5


async def test_broken_line_of_ndjson_is_rejected_alone(api: Api) -> None:
    lines = json.dumps(run(1)).encode() + b"\n{broken\n" + json.dumps(run(2)).encode()
    response = await api.post(
        "/runs/batch?register=true", content=lines, headers={"Content-Type": "application/x-ndjson"}
    )
    assert response.json()["inserted"] == 2
    assert response.json()["errors"] == [
        {"index": 1, "pointer": "/runs/1", "code": "invalid_json", "detail": "is not JSON in UTF-8"}
    ]


async def test_empty_batch_is_taken(api: Api) -> None:
    assert (await api.report())["received"] == 0

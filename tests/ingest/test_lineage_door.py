"""The OpenLineage door, through HTTP: recorded events of the real client come out as what really happened."""

import gzip
import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from headway.access import service
from headway.access.principal import Scope
from headway.core import clock
from headway.core.db import Database
from tests.api import Api

Db = psycopg.Connection[dict[str, Any]]
DATA = Path(__file__).parents[1] / "data" / "openlineage"
RECORDED = [json.loads(line)["body"] for line in (DATA / "events.ndjson").read_text().splitlines()]
TRUTH = [json.loads(line) for line in (DATA / "truth.ndjson").read_text().splitlines()]
JSON = {"Content-Type": "application/json"}


def event(**more: Any) -> dict[str, Any]:
    return {
        "eventType": "COMPLETE",
        "eventTime": "2026-11-01T06:00:00Z",
        "run": {"runId": "01a2052e-21bb-7363-a822-aada10ac4734", "facets": {}},
        "job": {"namespace": "shop", "name": "orders.load", "facets": {}},
        "producer": "https://github.com/example/shop-etl/v1",
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
    } | more


@pytest.mark.parametrize("order", ["as recorded", "backwards", "twice"])
async def test_recorded_session_comes_out_as_its_truth(api: Api, order: str) -> None:
    bodies = {"as recorded": RECORDED, "backwards": RECORDED[::-1], "twice": RECORDED * 2}[order]
    for body in bodies:
        assert (await api.post("/api/v1/lineage", content=body, headers=JSON)).status_code == 200
    runs = {run["external_run_id"]: run for run in (await api.get("/runs")).json()["items"]}
    wanted = {case["run_id"]: case for case in TRUTH if case.get("run_id")}
    assert runs.keys() == wanted.keys()
    for run_id, case in wanted.items():
        run = runs[run_id]
        assert run["status"] == {"unknown": "running"}.get(case["true_outcome"], case["true_outcome"]), case
        if "rows_out" in case:
            assert run["rows_processed"] == case["rows_out"]
        if "duration_s" in case:
            assert run["duration_ms"] == case["duration_s"] * 1000
        if "ended_utc" in case:
            assert run["finished_at"] == case["ended_utc"]
        if "error" in case:
            assert case["error"] in run["error_message"]


async def test_gzip_is_taken(api: Api) -> None:
    packed = gzip.compress(json.dumps(event()).encode())
    response = await api.post("/api/v1/lineage", content=packed, headers=JSON | {"Content-Encoding": "gzip"})
    assert response.status_code == 200
    assert len((await api.get("/runs")).json()["items"]) == 1


async def test_event_with_odd_texts_is_stored_all_the_same(api: Api) -> None:
    """A client does not send an event again after a 4xx, so an odd error text must not lose the run."""
    facets = {"errorMessage": {"message": "half \ud800 and \0 nul", "stackTrace": 7}, "odd": [float("inf"), 10**400]}
    odd = event(eventType="FAIL", run={"runId": "r1", "facets": facets})
    response = await api.post("/api/v1/lineage", content=json.dumps(odd), headers=JSON)
    assert response.status_code == 200
    (run,) = (await api.get("/runs")).json()["items"]
    assert run["status"] == "failed"
    assert run["error_message"].startswith("half ")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("{", 400, "invalid_json"),
        ("[" * 70 + "]" * 70, 400, "too_deep"),
        ("[]", 422, "invalid_type"),
        (json.dumps(event(eventTime="2026-11-01T06:00:00")), 422, "time_without_offset"),
        (json.dumps(event(run={})), 422, "missing"),
    ],
)
async def test_what_is_no_event_is_told_why(api: Api, body: str, status: int, code: str) -> None:
    response = await api.post("/api/v1/lineage", content=body, headers=JSON)
    assert response.status_code == status
    problem = response.json()
    assert code in {problem["code"], *(e["code"] for e in problem.get("errors", ()))}


async def test_events_without_a_run_make_none(api: Api, db: Db) -> None:
    job = event()
    del job["run"], job["eventType"]
    assert (await api.post("/api/v1/lineage", json=job)).status_code == 200
    assert db.execute("SELECT count(*) AS n FROM pipelines").fetchone() == {"n": 0}


async def test_prefix_names_the_client_and_a_bound_key_stays_with_its_own(
    keyed: Api, database: Database, db: Db
) -> None:
    async with database.transaction() as connection:
        admin = await service.create_key(connection, name="admin", scopes=Scope, now=clock.now())
        ingest = await service.create_key(connection, name="free", scopes=[Scope.INGEST], now=clock.now())
    await keyed.with_key(admin).make_client("acme")
    async with database.transaction() as connection:
        bound = await service.create_key(
            connection, name="bound", scopes=[Scope.INGEST], client="acme", now=clock.now()
        )
    assert (await keyed.post("/api/v1/lineage", json=event())).status_code == 401
    # a bound key reports for its client, with or without the prefix, and for no other
    assert (await keyed.with_key(bound).post("/api/v1/lineage", json=event())).status_code == 200
    assert (await keyed.with_key(bound).post("/in/acme/api/v1/lineage", json=event())).status_code == 200
    assert (await keyed.with_key(bound).post("/in/globex/api/v1/lineage", json=event())).status_code == 404
    assert db.execute("SELECT slug FROM clients").fetchall() == [{"slug": "acme"}]
    # an unbound key without admin makes no client but the default one
    assert (await keyed.with_key(ingest).post("/in/globex/api/v1/lineage", json=event())).status_code == 404
    assert (await keyed.with_key(ingest).post("/api/v1/lineage", json=event())).status_code == 200
    assert (await keyed.with_key(admin).post("/in/globex/api/v1/lineage", json=event())).status_code == 200
    slugs = {row["slug"] for row in db.execute("SELECT slug FROM clients")}
    assert slugs == {"acme", "default", "globex"}


async def test_overload_is_503_and_never_429(api: Api) -> None:
    api.app.state.in_flight.limit = 10
    response = await api.post("/api/v1/lineage", json=event())
    assert response.status_code == 503
    assert response.headers["Retry-After"]


async def test_unknown_word_is_running_and_counted(api: Api) -> None:
    assert (await api.post("/api/v1/lineage", json=event(eventType="PONDERING"))).status_code == 200
    (run,) = (await api.get("/runs")).json()["items"]
    assert (run["status"], run["status_reason"]) == ("running", "PONDERING")
    metrics = (await api.get("/metrics")).text
    assert 'headway_unknown_status_words_total{source="openlineage"} 1.0' in metrics
    assert 'headway_ingest_lag_seconds_count{source="openlineage"} 1.0' in metrics
    assert 'headway_observations_total{result="inserted",source="openlineage"} 1.0' in metrics


async def test_prefix_takes_a_clients_id_and_makes_none_of_an_unknown_one(api: Api, db: Db) -> None:
    acme = await api.make_client("acme")
    assert (await api.post(f"/in/{acme['id']}/api/v1/lineage", json=event())).status_code == 200
    unknown = "01a20762-a88c-787d-b265-fd08d74d2099"
    assert (await api.post(f"/in/{unknown}/api/v1/lineage", json=event())).status_code == 404
    batch = {"pipeline": {"client": unknown, "name": "n", "platform": "p"}, "external_run_id": "1", "status": "success"}
    refused = await api.report(batch, register=True)
    assert refused["errors"][0]["pointer"] == "/runs/0/pipeline/client"
    assert db.execute("SELECT slug FROM clients").fetchall() == [{"slug": "acme"}]


async def test_prefix_of_an_unknown_client_is_404_for_events_without_a_run_too(keyed: Api, database: Database) -> None:
    async with database.transaction() as connection:
        ingest = await service.create_key(connection, name="free", scopes=[Scope.INGEST], now=clock.now())
    job = event()
    del job["run"], job["eventType"]
    assert (await keyed.with_key(ingest).post("/in/acme/api/v1/lineage", json=job)).status_code == 404

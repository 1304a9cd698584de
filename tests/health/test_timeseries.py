"""Runs over time, through HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.api import Api
from tests.health.reference import Json, stamp, sure

Db = psycopg.Connection[dict[str, Any]]

WINDOW = {"since": "2026-10-01T00:00:00Z", "until": "2026-11-01T00:00:00Z"}
COUNTS = ("total", "success", "failed", "canceled", "skipped", "running", "queued")


async def points(api: Api, **parameters: Any) -> list[Json]:
    response = await api.get("/health/timeseries", params=WINDOW | parameters)
    assert response.status_code == 200, response.text
    found = response.json()
    assert (found["bucket"], found["group_by"]) == (
        parameters.get("bucket", "day"),
        parameters.get("group_by", "status"),
    )
    assert all(p["total"] == sum(p[word] for word in COUNTS[1:]) > 0 for p in found["points"])
    told: list[Json] = found["points"]
    return told


async def fleet(api: Api) -> dict[str, Json]:
    """Make three pipelines with runs around midnight, and around the beginning of a week (Monday, 2026-10-12)."""
    made = {
        "a": await api.make_pipeline("acme", "a", platform="dbt"),
        "b": await api.make_pipeline("acme", "b", platform="airflow"),
        "c": await api.make_pipeline("globex", "c", platform="dbt", environment="dev"),
    }
    told = [
        ("a", "success", "2026-10-11T23:59:59.999999Z"),
        ("a", "failed", "2026-10-12T00:00:00Z"),
        ("a", "success", "2026-10-12T00:59:59Z"),
        # 23:30 of the 11th in UTC
        ("b", "canceled", "2026-10-12T01:30:00+02:00"),
        ("b", "skipped", "2026-10-12T05:00:00Z"),
        ("c", "running", "2026-10-19T00:00:00Z"),
        ("c", "success", "2026-10-18T23:00:00Z"),
        ("c", "queued", "2026-10-18T23:10:00Z"),
        # outside: half open
        ("c", "failed", "2026-11-01T00:00:00Z"),
        ("c", "failed", "2026-09-30T23:59:59Z"),
    ]
    result = await api.report(
        *(
            {"pipeline_id": made[name]["id"], "external_run_id": f"r{n}", "status": status, "started_at": at}
            for n, (name, status, at) in enumerate(told)
        )
    )
    assert result["inserted"] == len(told)
    return made


def short(found: list[Json]) -> list[tuple[str, str, int]]:
    return [(p["time"].removesuffix(":00:00Z"), p["group"], p["total"]) for p in found]


async def test_each_bucket_begins_in_utc_and_weeks_on_monday(api: Api) -> None:
    await fleet(api)
    assert short(await points(api, bucket="hour", group_by="client")) == [
        ("2026-10-11T23", "acme", 2),
        ("2026-10-12T00", "acme", 2),
        ("2026-10-12T05", "acme", 1),
        ("2026-10-18T23", "globex", 2),
        ("2026-10-19T00", "globex", 1),
    ]
    assert short(await points(api, bucket="day", group_by="client")) == [
        ("2026-10-11T00", "acme", 2),
        ("2026-10-12T00", "acme", 3),
        ("2026-10-18T00", "globex", 2),
        ("2026-10-19T00", "globex", 1),
    ]
    assert short(await points(api, bucket="week", group_by="client")) == [
        ("2026-10-05T00", "acme", 2),
        ("2026-10-12T00", "acme", 3),
        ("2026-10-12T00", "globex", 2),
        ("2026-10-19T00", "globex", 1),
    ]


async def test_each_grouping_counts_every_status(api: Api) -> None:
    made = await fleet(api)
    by_pipeline = await points(api, bucket="week", group_by="pipeline")
    assert by_pipeline == sorted(by_pipeline, key=lambda p: (p["time"], p["group"]))
    assert {(p["group"], p["time"][:10]): p["total"] for p in by_pipeline} == {
        (made["a"]["id"], "2026-10-05"): 1,
        (made["a"]["id"], "2026-10-12"): 2,
        (made["b"]["id"], "2026-10-05"): 1,
        (made["b"]["id"], "2026-10-12"): 1,
        (made["c"]["id"], "2026-10-12"): 2,
        (made["c"]["id"], "2026-10-19"): 1,
    }
    assert short(await points(api, group_by="platform", bucket="week")) == [
        ("2026-10-05T00", "airflow", 1),
        ("2026-10-05T00", "dbt", 1),
        ("2026-10-12T00", "airflow", 1),
        ("2026-10-12T00", "dbt", 4),
        ("2026-10-19T00", "dbt", 1),
    ]
    by_status = await points(api)
    assert short(by_status) == [
        ("2026-10-11T00", "canceled", 1),
        ("2026-10-11T00", "success", 1),
        ("2026-10-12T00", "failed", 1),
        ("2026-10-12T00", "skipped", 1),
        ("2026-10-12T00", "success", 1),
        ("2026-10-18T00", "queued", 1),
        ("2026-10-18T00", "success", 1),
        ("2026-10-19T00", "running", 1),
    ]
    assert all(p[p["group"]] == p["total"] for p in by_status)
    assert len(await points(api, client="globex")) == 3
    assert len(await points(api, platform="airflow")) == 2
    assert len(await points(api, environment="dev", platform="airflow")) == 0


async def test_default_is_the_last_seven_days_by_day_and_status(api: Api) -> None:
    made = await api.make_pipeline()
    now = datetime.now(UTC)
    for n, days in enumerate((1, 6.9, 7.1)):
        at = stamp(now - timedelta(days=days))
        await api.report({"pipeline_id": made["id"], "external_run_id": f"{n}", "status": "success", "started_at": at})
    found = (await api.get("/health/timeseries")).json()
    assert (found["bucket"], found["group_by"]) == ("day", "status")
    assert [p["total"] for p in found["points"]] == [1, 1]
    assert sure(found["points"][-1]["time"]).hour == 0


@pytest.mark.parametrize(
    "wrong", [{"bucket": "month"}, {"group_by": "owner"}, {"since": WINDOW["until"]}, {"limit": "5"}]
)
async def test_what_is_not_known_is_refused(api: Api, wrong: dict[str, str]) -> None:
    assert (await api.get("/health/timeseries", params=WINDOW | wrong)).status_code == 422


async def test_more_than_ten_thousand_points_are_refused(api: Api, db: Db) -> None:
    made = await api.make_pipeline()
    db.execute(
        "INSERT INTO runs (pipeline_id, external_run_id, id, started_at, created_at, updated_at, attempt, status, source,"
        " rank) SELECT %s, n::text, gen_random_uuid(), timestamptz '2025-01-01T00:00Z' + n * interval '1 hour', now(),"
        " now(), 1, 'success', 'api', '' FROM generate_series(0, 10000) n",
        (made["id"],),
    )
    asked = {"since": "2025-01-01T00:00:00Z", "until": "2026-11-01T00:00:00Z", "bucket": "hour"}
    refused = await api.get("/health/timeseries", params=asked)
    assert (refused.status_code, refused.json()["code"]) == (422, "too_many_points")
    db.execute("DELETE FROM runs WHERE external_run_id = '7'")
    assert len((await api.get("/health/timeseries", params=asked)).json()["points"]) == 10_000
    assert len((await api.get("/health/timeseries", params=asked | {"bucket": "day"})).json()["points"]) == 417

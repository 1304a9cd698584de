"""What has not run in time, through HTTP."""

from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from headway.core import clock
from headway.core.db import Database
from headway.health import due
from tests.api import Api
from tests.health.reference import Json, stamp, sure
from tests.health.story import HOUR, MINUTE, ago, items, observation, tell

Db = psycopg.Connection[dict[str, Any]]

HOURLY = {"every_seconds": 3600, "grace_seconds": 900}
CRON = {"cron": "0 6 * * *", "timezone": "Europe/Berlin", "grace_seconds": 900}


async def expecting(api: Api, db: Db, due_at: datetime, schedule: Json, name: str = "daily", **more: Any) -> Json:
    """Make a pipeline whose next run is due at a time."""
    made = await api.make_pipeline("acme", name, schedule=schedule, **more)
    db.execute("UPDATE pipelines SET next_due_at = %s WHERE id = %s", (due_at, made["id"]))
    return made


async def late(api: Api, **parameters: Any) -> list[str]:
    return [item["pipeline_name"] for item in await items(api, "/health/late", **parameters)]


async def test_late_pipeline_tells_when_it_was_expected(api: Api, db: Db) -> None:
    made = await expecting(api, db, ago(2), CRON)
    await tell(api, made, "success", last=26)
    assert await items(api, "/health/late") == [
        {
            "pipeline_id": made["id"],
            "pipeline_name": "daily",
            "client_id": made["client_id"],
            "client_slug": "acme",
            "platform": "airflow",
            "environment": "prod",
            "expected_at": stamp(ago(2)),
            "deadline": stamp(ago(2) + 15 * MINUTE),
            "last_run_at": stamp(ago(26)),
        }
    ]
    assert (await api.get("/clients/acme/runs/summary")).json()["pipelines"]["late"] == 1


async def test_pipeline_that_never_ran_is_late_without_a_last_run(api: Api, db: Db) -> None:
    await expecting(api, db, ago(2), CRON)
    assert [i["last_run_at"] for i in await items(api, "/health/late")] == [None]


async def test_run_that_never_started_becomes_late_after_its_grace(api: Api, db: Db) -> None:
    await expecting(api, db, clock.now() - 14 * MINUTE, CRON)
    assert await late(api) == []
    db.execute("UPDATE pipelines SET next_due_at = %s", (clock.now() - 16 * MINUTE,))
    assert await late(api) == ["daily"]


@pytest.mark.parametrize("status", ["running", "success", "failed", "canceled", "skipped"])
async def test_run_that_came_is_not_late_before_the_worker_looked(api: Api, db: Db, status: str) -> None:
    made = await expecting(api, db, ago(2), CRON)
    await api.report(observation(made, "r", status, ago(2)))
    assert await late(api) == []


async def test_queued_run_has_not_started(api: Api, db: Db) -> None:
    made = await expecting(api, db, ago(2), CRON)
    await api.report(observation(made, "r", "queued", ago(1)))
    assert await late(api) == ["daily"]
    await api.report(observation(made, "r", "running", ago(1) + MINUTE))
    assert await late(api) == []


async def test_run_before_the_slot_does_not_meet_it(api: Api, db: Db) -> None:
    made = await expecting(api, db, ago(2), CRON)
    await api.report(observation(made, "r", "success", ago(2) - timedelta(microseconds=1)))
    assert await late(api) == ["daily"]


async def test_interval_begins_anew_with_every_run_though_it_came_early(api: Api, db: Db, database: Database) -> None:
    # a run at 4 h ago made the next one due 3 h ago; it came a minute before that, and the next one is missing
    made = await expecting(api, db, ago(3), HOURLY)
    await api.report(observation(made, "early", "success", ago(3) - MINUTE))
    assert await late(api) == []
    async with database.transaction() as connection:
        await due.advance_due(connection, now=clock.now())
    (item,) = await items(api, "/health/late")
    assert sure(item["expected_at"]) == ago(2) - MINUTE


async def test_deactivated_pipeline_is_not_late_and_starts_afresh(api: Api, db: Db) -> None:
    made = await expecting(api, db, ago(2), CRON)
    await api.delete(f"/pipelines/{made['id']}")
    assert await late(api) == []
    await api.patch(f"/pipelines/{made['id']}", json={"is_active": True})
    assert await late(api) == []
    row = db.execute("SELECT next_due_at FROM pipelines").fetchone()
    assert row is not None
    assert clock.now() < row["next_due_at"] <= clock.now() + 25 * HOUR


async def test_pipeline_without_a_schedule_is_never_late(api: Api, db: Db) -> None:
    made = await expecting(api, db, ago(2), CRON)
    await api.patch(f"/pipelines/{made['id']}", json={"schedule": None})
    assert await late(api) == []


async def test_late_and_failing_is_listed_and_counted_as_failing_alone(api: Api, db: Db) -> None:
    made = await expecting(api, db, ago(2), CRON)
    await tell(api, made, "failed", last=26)
    assert await late(api) == []
    assert len(await items(api, "/health/failing")) == 1
    counts = (await api.get("/clients/acme/runs/summary")).json()["pipelines"]
    assert counts == {"total": 1, "failing": 1, "late": 0, "healthy": 0, "unknown": 0}


async def test_earliest_deadline_comes_first_in_pages_and_filters_narrow(api: Api, db: Db) -> None:
    for n, hours in enumerate((3, 9, 5, 7)):
        more = {"platform": "dbt"} if n % 2 else {"environment": "dev"}
        await expecting(api, db, ago(hours), CRON if n else HOURLY, f"p{n}", **more)
    first = (await api.get("/health/late", params={"limit": 3})).json()
    second = (await api.get("/health/late", params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert [i["pipeline_name"] for i in first["items"] + second["items"]] == ["p1", "p3", "p2", "p0"]
    assert second["next_cursor"] is None
    assert await late(api, platform="dbt") == ["p1", "p3"]
    assert await late(api, environment="dev", client="acme") == ["p2", "p0"]

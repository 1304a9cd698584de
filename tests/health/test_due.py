"""The worker's step that moves pipelines to their next slots."""

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from headway.core.db import Database
from headway.health import due
from tests.api import Api

Db = psycopg.Connection[dict[str, Any]]

BERLIN = {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "grace_seconds": 900}
HOURLY = {"every_seconds": 3600, "grace_seconds": 300}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def make(db: Db, schedule: dict[str, Any], next_due_at: datetime | None, **more: Any) -> UUID:
    """Store a pipeline that is due at a time."""
    client, pipeline = uuid4(), uuid4()
    db.execute(
        "INSERT INTO clients (id, slug, name, ping_key, created_at, updated_at) VALUES (%s, %s, %s, %s, now(), now())",
        (client, f"c-{client}", f"c-{client}", str(client)),
    )
    db.execute(
        "INSERT INTO pipelines (id, client_id, slug, name, platform, schedule, next_due_at, is_active, ping_uuid,"
        " created_at, updated_at) VALUES (%s, %s, 'p', 'p', 'cron', %s, %s, %s, %s, now(), now())",
        (pipeline, client, Jsonb(schedule), next_due_at, more.get("is_active", True), uuid4()),
    )
    return pipeline


def run(db: Db, pipeline: UUID, started_at: datetime, status: str = "success") -> None:
    """Store a run."""
    db.execute(
        "INSERT INTO runs (pipeline_id, external_run_id, id, started_at, created_at, updated_at, attempt, status, source,"
        " rank) VALUES (%s, %s, %s, %s, %s, %s, 1, %s, 'api', '')",
        (pipeline, str(uuid4()), uuid4(), started_at, started_at, started_at, status),
    )


def next_due(db: Db, pipeline: UUID) -> datetime | None:
    row = db.execute("SELECT next_due_at FROM pipelines WHERE id = %s", (pipeline,)).fetchone()
    assert row is not None
    found: datetime | None = row["next_due_at"]
    return found


async def advance(database: Database, now: datetime) -> bool:
    async with database.transaction() as connection:
        return await due.advance_due(connection, now=now)


@pytest.mark.parametrize(
    "slots",
    [
        # spring: 02:30 does not exist on the 28th, and is due at 03:00 (01:00 UTC)
        ["2027-03-27T01:30", "2027-03-28T01:00", "2027-03-29T00:30"],
        # autumn: 02:30 comes twice on the 31st, and is due at the first
        ["2027-10-30T00:30", "2027-10-31T00:30", "2027-11-01T01:30"],
    ],
)
async def test_daily_run_is_due_once_on_days_when_the_clock_changes(
    db: Db, database: Database, slots: list[str]
) -> None:
    pipeline = make(db, BERLIN, at(slots[0]))
    for this, following in itertools.pairwise(slots):
        run(db, pipeline, at(this) + timedelta(seconds=20))
        await advance(database, at(this) + timedelta(minutes=5))
        assert next_due(db, pipeline) == at(following)


async def test_slot_that_nothing_met_stays(db: Db, database: Database) -> None:
    pipeline = make(db, BERLIN, at("2026-11-02T01:30"))
    run(db, pipeline, at("2026-11-02T01:29"))
    run(db, pipeline, at("2026-11-03T01:30"), "queued")
    assert not await advance(database, at("2026-11-20T12:00"))
    assert next_due(db, pipeline) == at("2026-11-02T01:30")


async def test_slot_is_left_alone_before_it_comes(db: Db, database: Database) -> None:
    pipeline = make(db, BERLIN, at("2026-11-02T01:30"))
    run(db, pipeline, at("2026-11-02T01:31"))
    await advance(database, at("2026-11-02T01:29"))
    assert next_due(db, pipeline) == at("2026-11-02T01:30")


@pytest.mark.parametrize(
    ("schedule", "ran_at", "following"),
    [
        # a long gap is caught up at once: a run meets every slot up to its own time
        (BERLIN, "2026-11-20T12:00", "2026-11-21T01:30"),
        # the latest run counts, and what it left unmet since is late
        (BERLIN, "2026-11-05T01:30", "2026-11-06T01:30"),
        (HOURLY, "2026-11-20T12:00:07.5", "2026-11-20T13:00:07.5"),
        (HOURLY, "2026-11-05T01:30", "2026-11-05T02:30"),
        # a source's clock may be ahead of ours
        (HOURLY, "2026-11-20T14:00", "2026-11-20T13:05"),
        (BERLIN, "2026-11-21T12:00", "2026-11-21T01:30"),
        # an interval begins anew with a run that came early; a run at its very beginning is the one that began it
        (HOURLY, "2026-11-02T01:29", "2026-11-02T02:29"),
        (HOURLY, "2026-11-02T00:30:00.000001", "2026-11-02T01:30:00.000001"),
        (HOURLY, "2026-11-02T00:30", "2026-11-02T01:30"),
    ],
)
async def test_next_slot_follows_the_latest_run(
    db: Db, database: Database, schedule: dict[str, Any], ran_at: str, following: str
) -> None:
    pipeline = make(db, schedule, at("2026-11-02T01:30"))
    run(db, pipeline, at("2026-11-01T01:30"))
    run(db, pipeline, min(at(ran_at), at("2026-11-02T01:45")))
    run(db, pipeline, at(ran_at), "running")
    assert not await advance(database, at("2026-11-20T12:05"))
    assert next_due(db, pipeline) == at(following)
    await advance(database, at("2026-11-20T12:05"))
    assert next_due(db, pipeline) == at(following), "a second look changes nothing"


async def test_run_that_comes_late_moves_the_slot(db: Db, database: Database) -> None:
    pipeline = make(db, BERLIN, at("2026-11-02T01:30"))
    await advance(database, at("2026-11-02T04:00"))
    run(db, pipeline, at("2026-11-02T05:00"))
    await advance(database, at("2026-11-02T05:01"))
    assert next_due(db, pipeline) == at("2026-11-03T01:30")


async def test_deactivated_pipelines_are_left_alone(db: Db, database: Database) -> None:
    pipeline = make(db, BERLIN, at("2026-11-02T01:30"), is_active=False)
    run(db, pipeline, at("2026-11-02T01:31"))
    await advance(database, at("2026-11-03T00:00"))
    assert next_due(db, pipeline) == at("2026-11-02T01:30")


async def test_many_are_moved_in_steps_that_say_whether_there_is_more(
    db: Db, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due, "CHUNK", 2)
    pipelines = [make(db, HOURLY, at("2026-11-02T01:30")) for _ in range(5)]
    for pipeline in pipelines:
        run(db, pipeline, at("2026-11-02T01:31"))
    now = at("2026-11-02T01:40")
    assert [await advance(database, now) for _ in range(4)] == [True, True, False, False]
    assert {next_due(db, pipeline) for pipeline in pipelines} == {at("2026-11-02T02:31")}


async def test_two_workers_at_once_share_the_work(db: Db, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(due, "CHUNK", 3)
    pipelines = [make(db, HOURLY, at("2026-11-02T01:30")) for _ in range(6)]
    for pipeline in pipelines:
        run(db, pipeline, at("2026-11-02T01:31"))
    now = at("2026-11-02T01:40")
    async with database.transaction() as first, database.transaction() as second:
        # neither waits for the other, nor does it again what the other did
        assert await due.advance_due(first, now=now)
        assert await asyncio.wait_for(due.advance_due(second, now=now), 5)
    assert {next_due(db, pipeline) for pipeline in pipelines} == {at("2026-11-02T02:31")}
    assert not await advance(database, now)


async def test_edit_of_a_schedule_decides_the_next_slot(api: Api, db: Db, database: Database) -> None:
    made = await api.make_pipeline(schedule={"every_seconds": 3600})
    pipeline = UUID(made["id"])
    db.execute("UPDATE pipelines SET next_due_at = %s", (at("2026-11-02T01:30"),))
    run(db, pipeline, at("2026-11-02T01:31"))
    now = datetime.now(UTC)
    await api.patch(f"/pipelines/{pipeline}", json={"schedule": {"every_seconds": 7200}})
    edited = next_due(db, pipeline)
    assert edited is not None
    assert now + timedelta(seconds=7200) <= edited <= now + timedelta(seconds=7260)
    await advance(database, datetime.now(UTC))
    assert next_due(db, pipeline) == edited, "older runs say nothing of a new schedule"
    await api.patch(f"/pipelines/{pipeline}", json={"schedule": None})
    assert next_due(db, pipeline) is None
    await advance(database, datetime.now(UTC) + timedelta(days=1))
    assert next_due(db, pipeline) is None

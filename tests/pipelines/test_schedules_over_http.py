"""Schedules as the API takes and shows them, and the next due time that edits keep."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg

from tests.api import Api

Db = psycopg.Connection[dict[str, Any]]


def due(db: Db) -> datetime | None:
    row = db.execute("SELECT next_due_at FROM pipelines").fetchone()
    assert row is not None
    found: datetime | None = row["next_due_at"]
    return found


FORMS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"cron": "0 6 * * *", "timezone": "Europe/Berlin", "grace_seconds": 900},
        {"cron": "0 6 * * *", "timezone": "Europe/Berlin", "grace_seconds": 900},
    ),
    ({"cron": "*/5 * * * 1-5"}, {"cron": "*/5 * * * 1-5", "timezone": "UTC", "grace_seconds": 300}),
    (
        {"cron": "30 2 * * *", "timezone": "America/New_York", "every_seconds": None},
        {"cron": "30 2 * * *", "timezone": "America/New_York", "grace_seconds": 300},
    ),
    ({"every_seconds": 3600, "grace_seconds": 0}, {"every_seconds": 3600, "grace_seconds": 0}),
    ({"every_seconds": 60, "cron": None, "timezone": None}, {"every_seconds": 60, "grace_seconds": 300}),
    ({"cron": "0 0 29 2 *"}, {"cron": "0 0 29 2 *", "timezone": "UTC", "grace_seconds": 300}),
]


async def test_schedule_is_kept_in_one_form(api: Api) -> None:
    made = await api.make_pipeline()
    for given, shown in FORMS:
        changed = (await api.patch(f"/pipelines/{made['id']}", json={"schedule": given})).json()
        assert changed["schedule"] == shown
        assert (await api.patch(f"/pipelines/{made['id']}", json={"schedule": shown})).json() == changed


INVALID: list[tuple[Any, str, str]] = [
    ({}, "/schedule", "invalid_schedule"),
    ({"grace_seconds": 60}, "/schedule", "invalid_schedule"),
    ({"cron": "0 6 * * *", "every_seconds": 60}, "/schedule", "invalid_schedule"),
    ({"every_seconds": 60, "timezone": "UTC"}, "/schedule", "invalid_schedule"),
    ({"cron": "0 6 * *"}, "/schedule", "invalid_cron"),
    ({"cron": "0 6 * * * *"}, "/schedule", "invalid_cron"),
    ({"cron": "61 6 * * *"}, "/schedule", "invalid_cron"),
    ({"cron": "@daily"}, "/schedule", "invalid_cron"),
    ({"cron": ""}, "/schedule", "invalid_cron"),
    ({"cron": "0 0 30 2 *"}, "/schedule", "invalid_cron"),
    ({"cron": "0 0 31 4 *"}, "/schedule", "invalid_cron"),
    ({"cron": "0 6 * * *" + " " * 100}, "/schedule/cron", "too_long"),
    ({"cron": 5}, "/schedule/cron", "invalid_type"),
    ({"cron": "0 6 * * *", "timezone": "Berlin"}, "/schedule/timezone", "invalid_timezone"),
    ({"cron": "0 6 * * *", "timezone": "../../etc/passwd"}, "/schedule/timezone", "invalid_timezone"),
    ({"cron": "0 6 * * *", "timezone": "Europe"}, "/schedule/timezone", "invalid_timezone"),
    ({"cron": "0 6 * * *", "timezone": ""}, "/schedule/timezone", "invalid_timezone"),
    ({"every_seconds": 59}, "/schedule/every_seconds", "out_of_range"),
    ({"every_seconds": 366 * 86_400 + 1}, "/schedule/every_seconds", "out_of_range"),
    ({"every_seconds": "60"}, "/schedule/every_seconds", "invalid_type"),
    ({"every_seconds": 60.5}, "/schedule/every_seconds", "invalid_type"),
    ({"every_seconds": 60, "grace_seconds": -1}, "/schedule/grace_seconds", "out_of_range"),
    ({"every_seconds": 60, "grace_seconds": 31 * 86_400}, "/schedule/grace_seconds", "out_of_range"),
    ({"every_seconds": 60, "interval": 1}, "/schedule/interval", "unknown_field"),
    ("0 6 * * *", "/schedule", "invalid_type"),
]


async def test_schedule_that_means_nothing_is_refused(api: Api, db: Db) -> None:
    await api.make_client("acme")
    for schedule, pointer, code in INVALID:
        body = {"name": "x", "platform": "cron", "schedule": schedule}
        response = await api.post("/clients/acme/pipelines", json=body)
        assert response.status_code == 422, schedule
        assert [(e["pointer"], e["code"]) for e in response.json()["errors"]] == [(pointer, code)], schedule
    assert db.execute("SELECT 1 FROM pipelines").fetchall() == []


async def test_next_due_follows_every_edit_of_the_schedule(api: Api, db: Db) -> None:
    made = await api.make_pipeline()
    path = f"/pipelines/{made['id']}"
    assert due(db) is None
    changed = (await api.patch(path, json={"schedule": {"every_seconds": 3600}})).json()
    first = due(db)
    assert first == datetime.fromisoformat(changed["updated_at"]) + timedelta(hours=1)
    await api.patch(path, json={"owner": "somebody else"})
    assert due(db) == first
    await api.patch(path, json={"schedule": {"every_seconds": 7200}})
    second = due(db)
    assert first is not None
    assert second is not None
    assert second > first
    await api.patch(path, json={"schedule": None})
    assert due(db) is None


async def test_put_of_the_same_schedule_does_not_move_what_is_due(api: Api, db: Db) -> None:
    await api.make_client("acme")
    body = {"name": "daily", "platform": "cron", "schedule": {"every_seconds": 3600}}
    await api.put("/clients/acme/pipelines/daily", json=body)
    first = due(db)
    assert first is not None
    await api.put("/clients/acme/pipelines/daily", json=body | {"owner": "x"})
    assert due(db) == first


async def test_cron_is_due_by_the_clock_of_its_zone(api: Api, db: Db) -> None:
    await api.make_pipeline(schedule={"cron": "0 6 * * *", "timezone": "Asia/Kathmandu"})
    found = due(db)
    assert found is not None
    local = found.astimezone(ZoneInfo("Asia/Kathmandu"))
    assert (local.hour, local.minute) == (6, 0)
    assert timedelta(0) < found - datetime.now(UTC) <= timedelta(days=1)

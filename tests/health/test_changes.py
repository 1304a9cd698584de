"""What changed since a time, through HTTP. Random fleets are in test_reference.py."""

from typing import Any

import psycopg

from tests.api import Api
from tests.health.reference import Json, stamp
from tests.health.story import MINUTE, ago, items, observation, run_id, tell

Db = psycopg.Connection[dict[str, Any]]


async def changes(api: Api, hours: float | None = None) -> list[tuple[str, str, str | None]]:
    found: list[Json] = await items(api, "/health/changes", **({} if hours is None else {"since": stamp(ago(hours))}))
    return [(i["change"], i["changed_at"], i["run_id"]) for i in found]


STORIES: list[tuple[str, str | None, str | None]] = [
    # one run an hour, the last one an hour ago; asked for the last 2.5 hours: two runs lie in them
    ("success success success", None, None),
    ("success failed success", None, None),
    ("success success failed", "newly_failing", "r2"),
    ("success failed failed", "newly_failing", "r1"),
    ("success failed skipped", "newly_failing", "r1"),
    ("canceled failed running", "newly_failing", "r1"),
    ("failed failed failed", None, None),
    ("failed success failed", None, None),
    ("failed skipped skipped", None, None),
    ("failed running queued", None, None),
    ("failed success success", "recovered", "r1"),
    ("failed failed success", "recovered", "r2"),
    ("failed canceled success", "recovered", "r1"),
    ("failed skipped success", "recovered", "r2"),
    ("success success", "new", "r0"),
    ("skipped", "new", "r0"),
    ("failed canceled", "new", "r0"),
    ("running success", "new", "r1"),
    ("failed failed", "newly_failing", "r0"),
    ("skipped success success", None, None),
    ("skipped failed", "newly_failing", "r1"),
    ("queued running", None, None),
    ("", None, None),
]


async def test_change_is_told_with_the_end_that_made_it(api: Api) -> None:
    wanted = {}
    for words, change, run in STORIES:
        made = await api.make_pipeline("acme", words or "never ran")
        await tell(api, made, words)
        if change is not None and run is not None:
            stored = (await api.get(f"/runs/{await run_id(api, made, run)}")).json()
            wanted[words] = {
                "pipeline_id": made["id"],
                "pipeline_name": words,
                "client_id": made["client_id"],
                "client_slug": "acme",
                "platform": "airflow",
                "environment": "prod",
                "change": change,
                "changed_at": stored["finished_at"],
                "run_id": stored["id"],
            }
    found = await items(api, "/health/changes", since=stamp(ago(2.5)))
    assert {item["pipeline_name"]: item for item in found} == wanted


async def test_since_is_a_day_ago_where_not_given_and_lies_in_the_past(api: Api) -> None:
    made = await api.make_pipeline()
    await tell(api, made, "success failed", last=23)
    assert [c[0] for c in await changes(api)] == ["newly_failing"]
    assert await changes(api, 22) == []
    refused = await api.get("/health/changes", params={"since": stamp(ago(-1))})
    assert (refused.status_code, refused.json()["code"]) == (422, "empty_window")


async def test_run_that_failed_before_and_was_run_again_to_success_since_recovered(api: Api) -> None:
    made = await api.make_pipeline()
    await api.report(observation(made, "r", "failed", ago(5)))
    await api.report(observation(made, "r", "running", ago(2), attempt=2))
    assert await changes(api, 3) == [], "a re-run under way changes nothing"
    await api.report(observation(made, "r", "success", ago(2), attempt=2))
    assert await changes(api, 3) == [("recovered", stamp(ago(2) + 10 * MINUTE), await run_id(api, made, "r"))]
    assert await changes(api, 6) == [("new", stamp(ago(5) + 10 * MINUTE), await run_id(api, made, "r"))]
    assert await changes(api, 1) == []


async def test_run_that_failed_and_was_run_again_to_success_since_is_no_change(api: Api) -> None:
    made = await api.make_pipeline()
    await tell(api, made, "success", last=9)
    await api.report(observation(made, "again", "failed", ago(5)))
    await api.report(observation(made, "again", "success", ago(2), attempt=2))
    assert await changes(api, 8) == []
    assert [c[0] for c in await changes(api, 3)] == ["recovered"]


async def test_success_that_was_run_again_to_failure_is_newly_failing(api: Api) -> None:
    made = await api.make_pipeline()
    await api.report(observation(made, "r", "success", ago(5)), observation(made, "r", "failed", ago(2), attempt=2))
    assert await changes(api, 3) == [("newly_failing", stamp(ago(2) + 10 * MINUTE), await run_id(api, made, "r"))]


async def test_failure_of_a_superseded_attempt_begins_the_streak(api: Api) -> None:
    made = await api.make_pipeline()
    await tell(api, made, "success", last=9)
    await api.report(observation(made, "again", "failed", ago(5)))
    await api.report(observation(made, "again", "failed", ago(2), attempt=2))
    assert await changes(api, 8) == [("newly_failing", stamp(ago(5) + 10 * MINUTE), await run_id(api, made, "again"))]


async def test_long_run_counts_from_its_end_on(api: Api) -> None:
    made = await api.make_pipeline()
    await tell(api, made, "success", last=30)
    await api.report(observation(made, "long", "failed", ago(20), finished_at=stamp(ago(1))))
    assert await changes(api, 2) == [("newly_failing", stamp(ago(1)), await run_id(api, made, "long"))]


async def test_pipeline_that_became_late_is_silent(api: Api, db: Db) -> None:
    made = await api.make_pipeline(schedule={"every_seconds": 3600, "grace_seconds": 600})
    await tell(api, made, "success", last=6)
    db.execute("UPDATE pipelines SET next_due_at = %s", (ago(5),))
    assert await changes(api, 5.5) == [("silent", stamp(ago(5) + 10 * MINUTE), None)]
    assert await changes(api, 4) == [], "it was late then, too"
    await api.report(observation(made, "next", "failed", ago(2)))
    assert [c[0] for c in await changes(api, 5.5)] == ["newly_failing"]


async def test_failing_pipeline_that_recovered_and_fell_silent_is_silent(api: Api, db: Db) -> None:
    made = await api.make_pipeline(schedule={"every_seconds": 3600, "grace_seconds": 600})
    await tell(api, made, "failed success", last=5)
    db.execute("UPDATE pipelines SET next_due_at = %s", (ago(4),))
    assert [c[0] for c in await changes(api, 5.5)] == ["silent"]
    assert await changes(api, 3) == []


async def test_latest_change_comes_first_in_pages(api: Api) -> None:
    made = [await api.make_pipeline("acme", f"p{n}") for n in range(5)]
    for n, pipeline in enumerate(made):
        await tell(api, pipeline, "failed", last=1 + n % 3)
    wanted = [p["id"] for p in sorted(made, key=lambda p: (-(made.index(p) % 3), p["id"]), reverse=True)]
    since = stamp(ago(20))
    first = (await api.get("/health/changes", params={"limit": 3, "since": since})).json()
    more = {"limit": 3, "since": since, "cursor": first["next_cursor"]}
    second = (await api.get("/health/changes", params=more)).json()
    assert [i["pipeline_id"] for i in first["items"] + second["items"]] == wanted
    assert second["next_cursor"] is None

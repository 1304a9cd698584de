"""A client's summary, through HTTP."""

import random
import statistics
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from headway.core import clock
from tests.api import Api
from tests.health.reference import Json, stamp, sure
from tests.health.story import MINUTE, ago, observation, run_id, tell

Db = psycopg.Connection[dict[str, Any]]

NONE = {"queued": 0, "running": 0, "success": 0, "failed": 0, "canceled": 0, "skipped": 0}


async def summary(api: Api, client: str = "acme", **parameters: Any) -> Json:
    response = await api.get(f"/clients/{client}/runs/summary", params=parameters)
    assert response.status_code == 200, response.text
    found: Json = response.json()
    return found


async def test_client_without_runs(api: Api) -> None:
    made = await api.make_client("acme")
    found = await summary(api)
    since, until = sure(found.pop("since")), sure(found.pop("until"))
    assert until - since == timedelta(days=1)
    assert timedelta(0) <= clock.now() - until < timedelta(seconds=30)
    assert found == {
        "client_id": made["id"],
        "total_runs": 0,
        "status_counts": NONE,
        "success_rate": None,
        "duration_ms": None,
        "pipelines": {"total": 0, "failing": 0, "late": 0, "healthy": 0, "unknown": 0},
        "latest_by_pipeline": [],
    }
    assert await summary(api, made["id"], since=stamp(since), until=stamp(until)) == await summary(
        api, since=stamp(since), until=stamp(until)
    )
    assert (await api.get("/clients/nobody/runs/summary")).json()["code"] == "client_not_found"


async def test_all_that_a_summary_tells(api: Api, db: Db) -> None:
    a = await api.make_pipeline("acme", "a")
    b = await api.make_pipeline("acme", "b", platform="dbt", environment="dev")
    c = await api.make_pipeline("acme", "c", schedule={"every_seconds": 3600})
    d = await api.make_pipeline("acme", "d")
    await api.make_pipeline("acme", "e")
    out = await api.make_pipeline("acme", "out")
    other = await api.make_pipeline("globex", "other")
    await tell(api, a, "success failed skipped failed running queued")
    await tell(api, b, "failed success canceled skipped")
    await tell(api, c, "success", last=30)
    await tell(api, d, "running")
    await tell(api, out, "failed")
    await tell(api, other, "failed")
    await api.delete(f"/pipelines/{out['id']}")
    db.execute("UPDATE pipelines SET next_due_at = %s WHERE id = %s", (ago(29), c["id"]))
    found = await summary(api)
    assert found["total_runs"] == 11
    assert found["status_counts"] == {
        "queued": 1, "running": 2, "success": 2, "failed": 3, "canceled": 1, "skipped": 2,
    }  # fmt: skip
    assert found["success_rate"] == 2 / 5
    assert found["duration_ms"] == {"p50": 600_000, "p95": 600_000, "max": 600_000}
    assert found["pipelines"] == {"total": 5, "failing": 1, "late": 1, "healthy": 1, "unknown": 2}
    told = {row["pipeline_name"]: row for row in found["latest_by_pipeline"]}
    assert list(told) == ["a", "b", "c", "d", "e"]
    assert told["b"] == {
        "pipeline_id": b["id"],
        "pipeline_name": "b",
        "platform": "dbt",
        "environment": "dev",
        "latest_status": "skipped",
        "latest_run_at": stamp(ago(1)),
        "latest_run_id": await run_id(api, b, "r3"),
        "consecutive_failures": 0,
    }
    assert [(row["latest_status"], row["consecutive_failures"]) for row in told.values()] == [
        ("queued", 2), ("skipped", 0), ("success", 0), ("running", 0), (None, 0),
    ]  # fmt: skip
    assert (told["e"]["latest_run_at"], told["e"]["latest_run_id"]) == (None, None)
    narrowed = await summary(api, platform="dbt", environment="dev")
    assert (narrowed["total_runs"], narrowed["pipelines"]["total"]) == (4, 1)
    assert [row["pipeline_name"] for row in narrowed["latest_by_pipeline"]] == ["b"]


async def test_only_skipped_runs_make_a_pipeline_known(api: Api) -> None:
    await tell(api, await api.make_pipeline("acme", "a"), "skipped")
    assert (await summary(api))["pipelines"] == {"total": 1, "failing": 0, "late": 0, "healthy": 1, "unknown": 0}
    assert (await summary(api))["success_rate"] is None


async def test_window_is_half_open(api: Api) -> None:
    await tell(api, await api.make_pipeline(), "success failed canceled skipped", last=2)  # at 5, 4, 3 and 2 hours ago
    found = await summary(api, since=stamp(ago(4)), until=stamp(ago(2)))
    assert found["status_counts"] == NONE | {"failed": 1, "canceled": 1}
    assert found["success_rate"] == 0
    assert (found["since"], found["until"]) == (stamp(ago(4)), stamp(ago(2)))
    refused = await api.get("/clients/acme/runs/summary", params={"since": stamp(ago(2)), "until": stamp(ago(2))})
    assert (refused.status_code, refused.json()["code"]) == (422, "empty_window")


async def test_default_window_is_a_day_before_its_end(api: Api) -> None:
    await tell(api, await api.make_pipeline(), "success failed", last=30)
    assert (await summary(api))["total_runs"] == 0
    found = await summary(api, until=stamp(ago(20)))
    assert (found["total_runs"], found["since"]) == (2, stamp(ago(44)))
    assert (await summary(api, since=stamp(ago(30))))["total_runs"] == 1


async def test_latest_run_and_streak_are_those_before_the_end_of_the_window(api: Api) -> None:
    made = await api.make_pipeline()
    await tell(api, made, "success failed failed running success")  # at 5, 4, 3, 2 and 1 hours ago
    for until, latest, streak in ((1, "r3", 2), (2, "r2", 2), (3, "r1", 1), (4, "r0", 0)):
        (row,) = (await summary(api, until=stamp(ago(until))))["latest_by_pipeline"]
        assert (row["latest_run_id"], row["consecutive_failures"]) == (await run_id(api, made, latest), streak)
    (row,) = (await summary(api, until=stamp(ago(5))))["latest_by_pipeline"]
    assert (row["latest_status"], row["latest_run_at"], row["latest_run_id"]) == (None, None, None)


@pytest.mark.parametrize("count", [1, 2, 101])
async def test_percentiles_are_those_that_python_computes(api: Api, count: int) -> None:
    chance = random.Random(count)  # noqa: S311 - made-up durations
    made = await api.make_pipeline()
    spans = [timedelta(microseconds=chance.randint(0, 10**10)) for _ in range(count)]
    runs = [
        observation(made, f"r{n}", "success", ago(10) + n * MINUTE, finished_at=stamp(ago(10) + n * MINUTE + span))
        for n, span in enumerate(spans)
    ]
    # no duration: not started, not ended, or ended before its start
    runs += [
        observation(made, "x", "success", ago(5)) | {"started_at": None},
        observation(made, "y", "running", ago(5)),
        observation(made, "z", "failed", ago(5), finished_at=stamp(ago(6))),
    ]
    assert (await api.report(*runs))["inserted"] == count + 3
    shown = [r["duration_ms"] for r in (await api.get("/runs", params={"limit": 1000})).json()["items"]]
    known = sorted(ms for ms in shown if ms is not None)
    assert len(known) == count
    cuts = statistics.quantiles(known, n=100, method="inclusive") if count > 1 else known * 99
    found = (await summary(api))["duration_ms"]
    assert found["max"] == known[-1]
    assert found["p50"] == pytest.approx(cuts[49])
    assert found["p95"] == pytest.approx(cuts[94])


async def test_a_client_of_many_pipelines_shows_the_first_thousand_by_name(api: Api) -> None:
    reference = {"client": "acme", "platform": "dbt"}
    for part in range(2):
        await api.report(
            *(
                {
                    "pipeline": reference | {"name": f"p{n:04}"},
                    "external_run_id": "r",
                    "status": "success",
                    "finished_at": stamp(ago(1)),
                }
                for n in range(part * 600, part * 600 + 600)
            ),
            register=True,
        )
    found = await summary(api)
    assert (found["total_runs"], found["pipelines"]["total"]) == (1200, 1200)
    assert [row["pipeline_name"] for row in found["latest_by_pipeline"]] == [f"p{n:04}" for n in range(1000)]

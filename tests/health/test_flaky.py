"""Which pipelines go back and forth, through HTTP."""

from tests.api import Api
from tests.health.story import ago, items, observation, tell

STORIES = {
    # total_runs, failures, flips
    "success failed": (2, 1, 1),
    "success failed success": (3, 1, 2),
    "failed failed success success": (4, 2, 1),
    "success skipped failed skipped success": (3, 1, 2),
    "success canceled success failed": (4, 1, 1),
    "failed canceled failed canceled success": (5, 2, 1),
    "success running failed queued": (2, 1, 1),
    "success success": None,
    "failed failed canceled": None,
    "skipped": None,
    "": None,
}


async def test_flips_are_changes_between_success_and_failure(api: Api) -> None:
    wanted = {}
    for words, counted in STORIES.items():
        made = await api.make_pipeline("acme", words or "never ran")
        await tell(api, made, words)
        if counted is not None:
            total, failures, flips = counted
            wanted[words] = {
                "pipeline_id": made["id"],
                "pipeline_name": words,
                "client_id": made["client_id"],
                "client_slug": "acme",
                "platform": "airflow",
                "environment": "prod",
                "total_runs": total,
                "failures": failures,
                "failure_rate": failures / total,
                "flips": flips,
            }
    assert {item["pipeline_name"]: item for item in await items(api, "/health/flaky")} == wanted


async def test_every_attempt_of_one_run_counts(api: Api) -> None:
    made = await api.make_pipeline()
    ends = [
        observation(made, "r", status, ago(5 - n), attempt=n + 1)
        for n, status in enumerate(["failed", "success", "skipped", "failed"])
    ]
    await api.report(ends[3])
    await api.report(ends[0], ends[2])
    await api.report(ends[1])
    (found,) = await items(api, "/health/flaky")
    assert (found["total_runs"], found["failures"], found["flips"]) == (3, 2, 2)


async def test_attempts_stand_in_order_of_time_among_other_runs(api: Api) -> None:
    made = await api.make_pipeline()
    await api.report(
        observation(made, "a", "failed", ago(9)),
        observation(made, "b", "failed", ago(8)),
        observation(made, "a", "success", ago(7), attempt=2),
        observation(made, "b", "success", ago(6), attempt=2),
    )
    (found,) = await items(api, "/health/flaky")
    assert (found["total_runs"], found["failures"], found["flips"]) == (4, 2, 1)


async def test_window_is_counted_in_days(api: Api) -> None:
    made = await api.make_pipeline()
    await api.report(observation(made, "old", "failed", ago(24 * 10)), observation(made, "new", "success", ago(20)))
    assert await items(api, "/health/flaky", days=9) == []
    assert len(await items(api, "/health/flaky", days=11)) == 1
    for days in (0, 367, "many"):
        assert (await api.get("/health/flaky", params={"days": days})).status_code == 422


async def test_most_flips_come_first_then_failures_in_pages(api: Api) -> None:
    stories = ["success failed", "success failed success", "success failed failed", "success failed failed success"]
    for n, words in enumerate(stories):
        await tell(api, await api.make_pipeline("acme", f"p{n}"), words)
    first = (await api.get("/health/flaky", params={"limit": 2})).json()
    second = (await api.get("/health/flaky", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [i["pipeline_name"] for i in first["items"] + second["items"]] == ["p3", "p1", "p2", "p0"]
    assert second["next_cursor"] is None
    refused = await api.get("/health/flaky", params={"days": 7, "cursor": first["next_cursor"]})
    assert refused.json()["code"] == "cursor_mismatch"

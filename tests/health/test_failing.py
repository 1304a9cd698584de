"""What is failing now, through HTTP."""

from tests.api import Api
from tests.health.reference import stamp
from tests.health.story import MINUTE, ago, items, observation, run_id, tell


async def test_failing_pipeline_tells_since_when_how_often_and_why(api: Api) -> None:
    made = await api.make_pipeline("acme", "daily", environment="staging")
    await tell(api, made, "failed success failed failed failed")
    assert await items(api, "/health/failing") == [
        {
            "pipeline_id": made["id"],
            "pipeline_name": "daily",
            "client_id": made["client_id"],
            "client_slug": "acme",
            "platform": "airflow",
            "environment": "staging",
            "failing_since": stamp(ago(3) + 10 * MINUTE),
            "consecutive_failures": 3,
            "last_error": "r4 failed",
            "last_failed_run_id": await run_id(api, made, "r4"),
            "last_success_at": stamp(ago(4) + 10 * MINUTE),
        }
    ]


STREAKS = {
    "": 0,
    "success": 0,
    "failed": 1,
    "failed success": 0,
    "success failed": 1,
    "failed canceled": 0,
    "failed canceled failed failed": 2,
    "failed success failed": 1,
    "success failed skipped": 1,
    "success failed skipped failed skipped skipped": 2,
    "success skipped": 0,
    "skipped": 0,
    "success failed running": 1,
    "success failed queued running failed queued": 2,
    "failed failed success running": 0,
}


async def test_streak_is_broken_by_success_and_cancel_alone(api: Api) -> None:
    for words in STREAKS:
        await tell(api, await api.make_pipeline("acme", words or "never ran"), words)
    found = {i["pipeline_name"]: i["consecutive_failures"] for i in await items(api, "/health/failing")}
    assert found == {words: failures for words, failures in STREAKS.items() if failures}
    summary = (await api.get("/clients/acme/runs/summary")).json()
    latest = {row["pipeline_name"]: row["consecutive_failures"] for row in summary["latest_by_pipeline"]}
    assert latest == {words or "never ran": failures for words, failures in STREAKS.items()}
    assert summary["pipelines"]["failing"] == len(found)


async def test_streak_is_counted_to_a_thousand_and_dated_beyond(api: Api) -> None:
    made = await api.make_pipeline()
    first = ago(60)
    runs = [observation(made, f"r{n}", "failed", first + n * MINUTE) for n in range(1005)]
    await api.report(*runs)
    (item,) = await items(api, "/health/failing")
    assert item["consecutive_failures"] == 1000
    assert item["failing_since"] == stamp(first + 10 * MINUTE)
    assert item["last_success_at"] is None


async def test_run_that_was_run_again_to_success_is_not_failing(api: Api) -> None:
    made = await api.make_pipeline()
    await api.report(observation(made, "r", "failed", ago(3)))
    assert len(await items(api, "/health/failing")) == 1
    await api.report(observation(made, "r", "running", ago(2), attempt=2))
    assert await items(api, "/health/failing") == []
    await api.report(observation(made, "r", "success", ago(2), attempt=2))
    assert await items(api, "/health/failing") == []


async def test_end_that_is_known_only_by_its_report_dates_the_failure(api: Api) -> None:
    made = await api.make_pipeline()
    told = observation(made, "r", "failed", ago(3), finished_at=None, observed_at=stamp(ago(2)))
    await api.report(told)
    assert [item["failing_since"] for item in await items(api, "/health/failing")] == [stamp(ago(2))]


async def test_longest_failing_comes_first_then_by_id_in_pages(api: Api) -> None:
    made = [await api.make_pipeline("acme", f"p{n}") for n in range(5)]
    for n, pipeline in enumerate(made):
        await tell(api, pipeline, "failed " * (1 + n % 3))
    order = sorted(made, key=lambda p: (-(made.index(p) % 3), p["id"]))
    page = (await api.get("/health/failing", params={"limit": 2})).json()
    assert [i["pipeline_id"] for i in page["items"]] == [p["id"] for p in order[:2]]
    # what begins to fail meanwhile does not move the pages
    await tell(api, await api.make_pipeline("acme", "p5"), "failed " * 6)
    rest = (await api.get("/health/failing", params={"limit": 10, "cursor": page["next_cursor"]})).json()
    assert [i["pipeline_id"] for i in rest["items"]] == [p["id"] for p in order[2:]]
    assert rest["next_cursor"] is None
    refused = await api.get("/health/failing", params={"platform": "airflow", "cursor": page["next_cursor"]})
    assert (refused.status_code, refused.json()["code"]) == (422, "cursor_mismatch")


async def test_filters_narrow_every_list(api: Api) -> None:
    a = await api.make_pipeline("acme", "a", platform="dbt", schedule={"every_seconds": 60})
    b = await api.make_pipeline("acme", "b", environment="dev", schedule={"every_seconds": 60})
    c = await api.make_pipeline("globex", "c", platform="dbt", environment="dev", schedule={"every_seconds": 60})
    for pipeline in (a, b, c):
        await tell(api, pipeline, "success failed success failed")
    for path in ("/health/failing", "/health/changes", "/health/flaky"):
        for parameters, wanted in (
            ({}, {"a", "b", "c"}),
            ({"client": "acme"}, {"a", "b"}),
            ({"client": c["client_id"]}, {"c"}),
            ({"platform": "dbt"}, {"a", "c"}),
            ({"environment": "dev"}, {"b", "c"}),
            ({"platform": "dbt", "environment": "dev", "client": "globex"}, {"c"}),
            ({"platform": "spark"}, set()),
        ):
            assert {i["pipeline_name"] for i in await items(api, path, **parameters)} == wanted, (path, parameters)
        assert (await api.get(path, params={"client": "nobody"})).status_code == 404
        assert (await api.get(path, params={"environment": "live"})).status_code == 422


async def test_deactivated_pipelines_and_clients_are_out(api: Api) -> None:
    made, other = await api.make_pipeline("acme", "a"), await api.make_pipeline("globex", "b")
    for pipeline in (made, other):
        await tell(api, pipeline, "success failed")
    await api.delete(f"/pipelines/{made['id']}")
    await api.delete("/clients/globex")
    for path in ("/health/failing", "/health/changes", "/health/flaky", "/health/late"):
        assert await items(api, path) == []
    assert (await api.get("/health/timeseries")).json()["points"] == []
    await api.patch(f"/pipelines/{made['id']}", json={"is_active": True})
    assert [i["pipeline_name"] for i in await items(api, "/health/failing")] == ["a"]

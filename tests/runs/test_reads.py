"""Lists of runs, the latest, one by id and its history, through HTTP."""

import random
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from headway.core.db import Database
from headway.runs import queries
from tests.access.keys import make_key
from tests.api import Api
from tests.health.recorder import recorded
from tests.health.reference import Json, walk

Db = psycopg.Connection[dict[str, Any]]

STATUSES = ["success", "success", "success", "failed", "canceled", "skipped", "running", "queued"]
PLACES = [("acme", "airflow", "prod"), ("acme", "dbt", "dev"), ("acme", "dbt", "prod"), ("globex", "airflow", "prod")]


def at(hour: int) -> str:
    return f"2026-11-{1 + hour // 24:02}T{hour % 24:02}:00:00Z"


async def make_runs(api: Api, count: int = 160) -> list[Json]:
    """Make pipelines of two clients with runs, many of them at the same time; returns them with where they belong."""
    chance = random.Random(7)  # noqa: S311 - made-up runs
    made = [
        await api.make_pipeline(client, f"p{n}", platform=platform, environment=environment)
        for n, (client, platform, environment) in enumerate(PLACES)
    ]
    told = [
        {
            "pipeline_id": chance.choice(made)["id"],
            "external_run_id": f"r{n // 2}-{n % 2}" if n % 3 else f"shared-{n}",
            "status": chance.choice(STATUSES),
            "started_at": at(chance.randint(0, 40)),
        }
        for n in range(count)
    ]
    told += [{**told[0], "pipeline_id": p["id"], "external_run_id": "everywhere"} for p in made]
    assert (await api.report(*told))["inserted"] == len(told)
    where = {p["id"]: place for p, place in zip(made, PLACES, strict=True)}
    runs = await walk(api, "/runs", limit=1000)
    return [
        run | dict(zip(("client", "platform", "environment"), where[run["pipeline_id"]], strict=True)) for run in runs
    ]


def place(run: Json) -> tuple[str, str]:
    return run["run_at"], run["id"]


Rule = Callable[[Json], bool]

FILTERS: list[tuple[dict[str, Any], Rule]] = [
    ({"status": "failed"}, lambda r: r["status"] == "failed"),
    ({"status": "success"}, lambda r: r["status"] == "success"),
    ({"status": ["queued", "running", "queued"]}, lambda r: r["status"] in {"queued", "running"}),
    ({"status": ["failed", "success"]}, lambda r: r["status"] in {"failed", "success"}),
    ({"since": at(20)}, lambda r: r["run_at"] >= at(20)),
    ({"until": at(20)}, lambda r: r["run_at"] < at(20)),
    ({"since": at(10), "until": at(11)}, lambda r: r["run_at"] == at(10)),
    ({"since": "2026-11-01T11:00:00+01:00"}, lambda r: r["run_at"] >= at(10)),
    ({"external_run_id": "everywhere"}, lambda r: r["external_run_id"] == "everywhere"),
    ({"external_run_id": "nowhere"}, lambda _: False),
]
OF_FLEET: list[tuple[dict[str, Any], Rule]] = [
    ({}, lambda _: True),
    ({"client": "acme"}, lambda r: r["client"] == "acme"),
    ({"platform": "dbt"}, lambda r: r["platform"] == "dbt"),
    ({"platform": "spark"}, lambda _: False),
    ({"environment": "dev"}, lambda r: r["environment"] == "dev"),
    (
        {"client": "acme", "platform": "dbt", "environment": "prod"},
        lambda r: (r["client"], r["platform"], r["environment"]) == ("acme", "dbt", "prod"),
    ),
    ({"client": "globex", "environment": "dev"}, lambda _: False),
]


@pytest.mark.parametrize("few", [queries.FEW_PIPELINES, 0], ids=["few pipelines", "many pipelines"])
async def test_every_combination_of_filters_gives_what_fits_in_order(
    api: Api, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(queries, "FEW_PIPELINES", few)
    runs = sorted(await make_runs(api), key=place, reverse=True)
    for fleet, fits_fleet in OF_FLEET:
        for first, fits_first in FILTERS:
            for second, fits_second in FILTERS[2:5]:
                asked = first | second | fleet
                # what the second says in place of the first holds alone
                rules = [fits_fleet, fits_second] + ([] if first.keys() & second.keys() else [fits_first])
                if first.keys() & second.keys() and first.keys() != second.keys():
                    continue
                if asked.get("since", at(0)) >= asked.get("until", at(50)):
                    continue
                wanted = [run["id"] for run in runs if all(rule(run) for rule in rules)]
                found = (await api.get("/runs", params=asked | {"limit": 1000})).json()["items"]
                assert [run["id"] for run in found] == wanted, asked


async def test_ascending_order_is_the_exact_reverse_in_pages(api: Api) -> None:
    runs = await make_runs(api)
    pipeline = runs[0]["pipeline_id"]
    for path, own in (
        ("/runs", runs),
        (f"/pipelines/{pipeline}/runs", [r for r in runs if r["pipeline_id"] == pipeline]),
    ):
        for more, rule in OF_FLEET[:1] + FILTERS[:6]:
            wanted = [r["id"] for r in sorted(own, key=place) if rule(r)]
            found = await walk(api, path, order="asc", limit=7, **more)
            assert [r["id"] for r in found] == wanted
            found = await walk(api, path, order="desc", limit=7, **more)
            assert [r["id"] for r in found] == wanted[::-1]
    for client in ("acme", "globex"):
        ascending = await walk(api, "/runs", client=client, order="asc", limit=9, status=["failed", "queued"])
        assert ascending == (await walk(api, "/runs", client=client, limit=9, status=["failed", "queued"]))[::-1]
    refused = await api.get("/runs", params={"order": "random"})
    assert refused.status_code == 422


async def test_client_is_named_by_slug_or_id(api: Api) -> None:
    runs = await make_runs(api, 20)
    client = (await api.get("/clients/globex")).json()["id"]
    by_slug = (await api.get("/runs", params={"client": "globex"})).json()
    assert by_slug == (await api.get("/runs", params={"client": client})).json()
    assert len(by_slug["items"]) == sum(run["client"] == "globex" for run in runs) > 0
    for nobody in ("nobody", str(uuid4())):
        response = await api.get("/runs", params={"client": nobody})
        assert (response.status_code, response.json()["code"]) == (404, "client_not_found")


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("more", [{}, {"client": "acme"}, {"status": "failed"}, {"status": ["failed", "running"]}])
async def test_pages_are_stable_while_runs_are_inserted(api: Api, order: str, more: dict[str, Any]) -> None:
    runs = await make_runs(api)
    before = [run["id"] for run in await walk(api, "/runs", order=order, limit=1000, **more)]
    seen: list[str] = []
    cursor, count = None, 0
    while True:
        asked = {"order": order, "limit": 11} | more | ({"cursor": cursor} if cursor else {})
        page = (await api.get("/runs", params=asked)).json()
        seen += [run["id"] for run in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        for hour in (0, 20, 40):
            count += 1
            told = {"pipeline_id": runs[count]["pipeline_id"], "external_run_id": f"new-{count}", "status": "failed"}
            await api.report(told | {"started_at": at(hour)})
    assert len(seen) == len(set(seen))
    known = set(before)
    assert [run for run in seen if run in known] == before


async def test_cursor_belongs_to_its_question(api: Api) -> None:
    runs = await make_runs(api, 30)
    pipeline = runs[0]["pipeline_id"]
    cursor = (await api.get("/runs", params={"limit": 2})).json()["next_cursor"]
    assert (await api.get("/runs", params={"limit": 5, "cursor": cursor})).status_code == 200
    for path, more in (
        ("/runs", {"order": "asc"}),
        ("/runs", {"status": "failed"}),
        ("/runs", {"client": "acme"}),
        ("/runs", {"since": at(0)}),
        (f"/pipelines/{pipeline}/runs", {}),
    ):
        response = await api.get(path, params={"cursor": cursor} | more)
        assert (response.status_code, response.json()["code"]) == (422, "cursor_mismatch")


async def test_runs_of_deactivated_pipelines_stay(api: Api) -> None:
    runs = await make_runs(api, 20)
    pipeline = runs[0]["pipeline_id"]
    await api.delete(f"/pipelines/{pipeline}")
    await api.delete("/clients/globex")
    assert len(await walk(api, "/runs")) == len(runs)
    assert len(await walk(api, "/runs", client="globex")) == sum(run["client"] == "globex" for run in runs)
    assert len(await walk(api, f"/pipelines/{pipeline}/runs")) == sum(run["pipeline_id"] == pipeline for run in runs)


async def test_latest_is_the_first_of_the_list(api: Api) -> None:
    made = await api.make_pipeline()
    path = f"/pipelines/{made['id']}/runs"
    response = await api.get(f"{path}/latest")
    assert (response.status_code, response.json()["code"]) == (404, "no_runs")
    for n, (status, hour) in enumerate([("success", 5), ("queued", 9), ("failed", 9), ("running", 9), ("success", 2)]):
        told = {"pipeline_id": made["id"], "external_run_id": f"r{n}", "status": status, "started_at": at(hour)}
        await api.report(told)
        latest = (await api.get(f"{path}/latest")).json()
        assert latest == (await api.get(path)).json()["items"][0]
        assert latest == (await api.get(f"/runs/{latest['id']}")).json()
        assert latest["run_at"] == at(5 if n == 0 else 9)
    unknown = await api.get(f"/pipelines/{uuid4()}/runs/latest")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "pipeline_not_found")
    assert (await api.get(f"/pipelines/{uuid4()}/runs")).json()["code"] == "pipeline_not_found"


async def test_run_is_shown_as_its_reports_say_together(api: Api) -> None:
    made = await api.make_pipeline()
    told = {
        "pipeline_id": made["id"],
        "external_run_id": "r",
        "url": "https://x.example/1",
        "payload": {"a": [1, None]},
    }
    await api.report(told | {"status": "running", "started_at": at(1), "scheduled_for": at(0)})
    ended = {"finished_at": "2026-11-01T01:00:01.234567Z", "rows_processed": 7, "status_reason": "upstream"}
    await api.report(told | ended | {"status": "failed", "error_message": "boom"})
    (run,) = (await api.get("/runs")).json()["items"]
    assert run | {"id": "", "created_at": "", "updated_at": ""} == {
        "id": "",
        "pipeline_id": made["id"],
        "external_run_id": "r",
        "status": "failed",
        "status_reason": "upstream",
        "attempt": 1,
        "run_at": at(1),
        "scheduled_for": at(0),
        "started_at": at(1),
        "finished_at": ended["finished_at"],
        "duration_ms": 1234,
        "rows_processed": 7,
        "error_message": "boom",
        "url": "https://x.example/1",
        "payload": {"a": [1, None]},
        "source": "api",
        "observed_at": ended["finished_at"],
        "created_at": "",
        "updated_at": "",
    }
    assert run["created_at"] < run["updated_at"]
    missing = await api.get(f"/runs/{uuid4()}")
    assert (missing.status_code, missing.json()["code"]) == (404, "run_not_found")
    assert (await api.get(f"/runs/{uuid4()}/events")).json()["code"] == "run_not_found"


async def test_events_tell_each_attempt_and_status_in_order(api: Api) -> None:
    made = await api.make_pipeline()
    told = {"pipeline_id": made["id"], "external_run_id": "r"}
    reports = [
        told | {"attempt": 2, "status": "success", "started_at": at(5), "finished_at": at(6)},
        told | {"attempt": 1, "status": "failed", "finished_at": at(3), "error_message": "late words"},
        told | {"attempt": 1, "status": "failed", "observed_at": at(2), "started_at": at(1), "error_message": "boom"},
        told | {"attempt": 1, "status": "running", "started_at": at(1)},
        told | {"attempt": 1, "status": "queued", "scheduled_for": at(0)},
        told | {"attempt": 1, "status": "canceled", "observed_at": at(2)},
        told | {"attempt": 2, "status": "running", "started_at": at(5), "observed_at": at(5)},
        told | {"attempt": 2, "status": "running", "started_at": at(4), "observed_at": at(7)},
    ]
    for report in reports:
        await api.report(report)
    run = (await api.get(f"/pipelines/{made['id']}/runs/latest")).json()
    events = (await api.get(f"/runs/{run['id']}/events")).json()
    assert all(event.pop("recorded_at").endswith("Z") and event.pop("source") == "api" for event in events)
    names = ("attempt", "status", "occurred_at", "last_occurred_at", "started_at", "finished_at", "error_message")
    assert [tuple(event[name] for name in names) for event in events] == [
        (1, "queued", None, None, None, None, None),
        (1, "running", at(1), at(1), at(1), None, None),
        (1, "canceled", at(2), at(2), None, None, None),
        (1, "failed", at(2), at(3), at(1), at(3), "late words"),
        (2, "running", at(5), at(7), at(4), None, None),
        (2, "success", at(6), at(6), at(5), at(6), None),
    ]


async def test_a_bound_key_reads_its_own_client_alone(keyed: Api, api: Api, database: Database) -> None:
    runs = await make_runs(api, 20)
    bound = keyed.with_key(await make_key(database, "read", client="globex"))
    own = [run for run in runs if run["client"] == "globex"]
    other = next(run for run in runs if run["client"] == "acme")
    assert len((await bound.get("/runs")).json()["items"]) == len(own)
    assert len((await bound.get("/runs", params={"external_run_id": "everywhere"})).json()["items"]) == 1
    assert (await bound.get(f"/runs/{own[0]['id']}")).status_code == 200
    for path in (
        f"/runs/{other['id']}",
        f"/runs/{other['id']}/events",
        f"/pipelines/{other['pipeline_id']}/runs",
        f"/pipelines/{other['pipeline_id']}/runs/latest",
        "/runs?client=acme",
        "/health/failing?client=acme",
        "/clients/acme/runs/summary",
    ):
        assert (await bound.get(path)).status_code == 404, path
    for path in ("/health/failing", "/health/changes", "/health/flaky", "/health/late"):
        assert {item["client_slug"] for item in (await bound.get(path)).json()["items"]} <= {"globex"}


async def test_reads_send_as_many_statements_for_twice_the_runs(api: Api) -> None:
    database: Database = api.app.state.database

    async def count(runs: int) -> dict[str, int]:
        made = (await api.get("/clients/acme")).status_code == 200
        if not made:
            await make_runs(api, runs)
        else:
            pipelines = (await api.get("/pipelines")).json()["items"]
            await api.make_pipeline("acme", "further")
            told = [
                {"pipeline_id": p["id"], "external_run_id": f"more-{n}", "status": "failed", "started_at": at(n)}
                for p in pipelines
                for n in range(runs // len(pipelines))
            ]
            await api.report(*told)
        run = (await api.get("/runs", params={"limit": 1})).json()["items"][0]
        counts = {}
        for path in (
            "/runs",
            "/runs?client=acme",
            "/runs?client=acme&status=failed&status=running",
            "/runs?status=failed",
            "/runs?external_run_id=everywhere",
            f"/pipelines/{run['pipeline_id']}/runs",
            f"/pipelines/{run['pipeline_id']}/runs/latest",
            f"/runs/{run['id']}",
            f"/runs/{run['id']}/events",
            "/clients/acme/runs/summary",
            "/health/failing",
            "/health/changes",
            "/health/flaky",
            "/health/late",
            "/health/timeseries",
            "/metrics",
        ):
            with recorded(database) as sent:
                assert (await api.get(path)).status_code == 200
            counts[path.replace(run["id"], "run").replace(run["pipeline_id"], "pipeline")] = len(sent)
        return counts

    once = await count(40)
    assert max(once.values()) <= 4, once
    assert await count(40) == once

"""The demo fleet: every read of the API shows something of it, and loading again adds only what is new."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from statistics import mean
from typing import Any
from uuid import UUID

import psycopg
import pytest

from headway import demo
from headway.alerts import rules as alert_rules
from headway.core import clock
from headway.demo import plan
from headway.demo.fleet import CLIENTS, FAKE_SECRETS
from headway.embedded.server import EmbeddedServer
from headway.main import create_app
from headway.migrations import runner
from headway.pipelines import schedule as rules
from headway.pipelines.schemas import NewPipeline
from headway.runs.observation import TERMINAL, Status
from headway.settings import Settings
from tests.api import Api, running
from tests.conftest import PASSWORDS, CloneDatabase

Db = psycopg.Connection[dict[str, Any]]
DAYS = 23
DAY = timedelta(days=1)


class Demo:
    """A database with the demo fleet in it, and what the load said."""

    def __init__(self, server: EmbeddedServer, name: str, now: datetime) -> None:
        self.url = server.url(runner.APP, PASSWORDS[runner.APP], name)
        self.superuser_url = server.superuser_url(name)
        self.now = now
        self.said: list[str] = []

    async def load(self, *, now: datetime, days: int) -> None:
        await demo.load(self.url, say=self.said.append, now=now, days=days)

    def fetch(self, statement: str) -> list[dict[str, Any]]:
        with psycopg.connect(self.superuser_url, row_factory=psycopg.rows.dict_row) as connection:
            return connection.execute(statement.encode()).fetchall()

    def rows(self, table: str) -> dict[Any, dict[str, Any]]:
        """Return all of a table with the physical version of each row."""
        return {row["ctid"]: row for row in self.fetch(f"SELECT ctid::text, xmin::text, t.* FROM {table} t")}


@pytest.fixture(scope="module")
def fleet(server: EmbeddedServer, clone_database: CloneDatabase) -> Demo:
    """Return the fleet as loaded just now; tests leave it as it is."""
    loaded = Demo(server, clone_database(), clock.now())
    asyncio.run(loaded.load(now=loaded.now, days=DAYS))
    return loaded


@pytest.fixture
async def shown(settings: Settings, fleet: Demo) -> AsyncIterator[Api]:
    """Return a client of a service that shows the fleet."""
    async with running(create_app(settings, fleet.url)) as client:
        yield client


async def items(api: Api, path: str, **parameters: Any) -> list[dict[str, Any]]:
    response = await api.get(path, params={"limit": 1000, **parameters})
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["items"]
    return found


async def test_inventory_is_three_clients_with_thirty_pipelines_of_all_kinds(shown: Api) -> None:
    assert {c["slug"] for c in await items(shown, "/clients")} == {c.slug for c in CLIENTS}
    pipelines = await items(shown, "/pipelines")
    assert len(pipelines) == 30
    assert len({p["platform"] for p in pipelines}) == 8
    assert {p["environment"] for p in pipelines} == {"prod", "staging", "dev"}
    assert {p["pipeline_type"] for p in pipelines} == {
        *("ingestion", "transform", "quality", "export", "healthcheck", "other")
    }
    assert {(p["schedule"] or {}).get("timezone") for p in pipelines} >= {"Europe/Berlin", "America/Chicago", None}
    assert all(p["owner"] and p["url"].startswith("https://") and p["tags"] for p in pipelines)
    kinds = {"on_failure", "consecutive_failures", "failures_in_window", "failure_rate"}
    assert {r["rule_type"] for r in await items(shown, "/alert_rules")} == kinds


async def test_failing_shows_streaks_of_different_length_with_their_errors(shown: Api) -> None:
    failing = {f["pipeline_name"]: f for f in await items(shown, "/health/failing")}
    steady = ("stripe_payments_ingest", "lab_results_ingest", "dispatch_db_replication", "fuel_card_statements")
    streaks = [failing[name]["consecutive_failures"] for name in steady]
    assert 6 <= streaks[0] <= 8
    assert 29 <= streaks[1] <= 31
    assert 142 <= streaks[2] <= 145
    assert 20 <= streaks[3] <= 22
    assert {"dbt_finance_marts", "cohort_refresh"} <= failing.keys()
    assert all(f["last_error"] for f in failing.values())


async def test_changes_show_all_four_kinds(shown: Api) -> None:
    changes = {(c["change"], c["pipeline_name"]) for c in await items(shown, "/health/changes")}
    assert {
        ("newly_failing", "stripe_payments_ingest"),
        ("recovered", "eta_model_features"),
        ("new", "loyalty_points_ingest"),
        ("silent", "edi_214_inbound"),
    } <= changes


async def test_only_the_silent_are_late_and_one_is_unknown(shown: Api) -> None:
    late = {p["pipeline_name"]: p for p in await items(shown, "/health/late")}
    assert late.keys() == {"sap_daily_sales_export", "edi_214_inbound"}
    assert all(p["last_run_at"] is not None for p in late.values())
    unknown = 0
    for client in CLIENTS:
        summary = (await shown.get(f"/clients/{client.slug}/runs/summary")).json()
        assert summary["total_runs"] > 50
        assert summary["duration_ms"]["p95"] > summary["duration_ms"]["p50"] > 0
        assert 0.5 < summary["success_rate"] < 1
        assert summary["pipelines"]["healthy"] > 0
        unknown += summary["pipelines"]["unknown"]
    assert unknown == 1


async def test_flaky_pipelines_come_first_among_the_flaky(shown: Api) -> None:
    flaky = await items(shown, "/health/flaky", days=DAYS)
    first = {f["pipeline_name"] for f in flaky[:4]}
    assert first == {"erp_stock_levels", "port_arrivals_scrape", "dbt_slim_ci", "dq_orders_freshness"}
    assert all(f["flips"] > 50 and 0.03 < f["failure_rate"] < 0.4 for f in flaky[:4])


@pytest.mark.parametrize("group_by", ["status", "client", "platform", "pipeline"])
async def test_timeseries_shows_every_day(shown: Api, group_by: str) -> None:
    since = (clock.now() - 20 * DAY).isoformat()
    response = await shown.get(
        "/health/timeseries", params={"bucket": "day", "group_by": group_by, "since": since}
    )  # fmt: skip
    points = response.json()["points"]
    assert len({point["time"] for point in points}) >= 20
    assert {"status": 4, "client": 3, "platform": 8, "pipeline": 29}[group_by] <= len({p["group"] for p in points})


@pytest.mark.parametrize("status", list(Status))
async def test_there_are_runs_of_every_status(shown: Api, status: Status) -> None:
    runs = await items(shown, "/runs", status=status.value, limit=20)
    assert runs
    assert all(run["url"].startswith("https://") and run["status_reason"] for run in runs)
    if status in TERMINAL:
        assert all(run["payload"]["job"] for run in runs)


async def test_runs_that_were_run_again_keep_their_history(shown: Api, fleet: Demo) -> None:
    (run,) = fleet.fetch("SELECT id FROM runs WHERE attempt = 3 AND status = 'success' ORDER BY run_at DESC LIMIT 1")
    events = (await shown.get(f"/runs/{run['id']}/events")).json()
    ends = [(e["attempt"], e["status"]) for e in events if e["status"] != "running"]
    assert ends == [(1, "failed"), (2, "failed"), (3, "success")]
    assert all(e["error_message"] for e in events if e["status"] == "failed")


def test_durations_and_rows_have_a_trend() -> None:
    now = datetime(2026, 3, 27, 12, tzinfo=UTC)
    (row,) = (r for client in CLIENTS for r in client.pipelines if r.slug == "dbt_core_models")
    job = plan.Job("alderbrook-retail", row, UUID(int=0))
    runs = [
        (o.started_at, (o.finished_at - o.started_at).total_seconds(), o.rows_processed)
        for o in plan.observations(job, since=now - 84 * DAY, now=now, first_load=now)
        if o.status is Status.SUCCESS and o.started_at and o.finished_at and o.rows_processed
    ]
    first = [run for run in runs if run[0] < now - 56 * DAY]
    last = [run for run in runs if run[0] > now - 28 * DAY]
    assert mean(seconds for _, seconds, _ in last) > 1.5 * mean(seconds for _, seconds, _ in first)
    assert mean(rows for _, _, rows in last) > 1.15 * mean(rows for _, _, rows in first)
    weekend = mean(rows for at, _, rows in last if at.weekday() >= 5)
    assert weekend < 0.7 * mean(rows for at, _, rows in last if at.weekday() < 5)


def test_made_up_secrets_are_redacted_and_nowhere_stored(fleet: Demo) -> None:
    for secret, table in itertools.product(FAKE_SECRETS.values(), ("runs", "run_events", "pipelines")):
        assert fleet.fetch(f"SELECT 1 FROM {table} t WHERE strpos(t::text, '{secret}') > 0 LIMIT 1") == []
    redacted = "SELECT 1 FROM runs WHERE {} LIKE '%[redacted]%' LIMIT 1"
    assert fleet.fetch(redacted.format("error_message"))
    assert fleet.fetch(redacted.format("payload::text"))


TABLES = ("clients", "pipelines", "alert_rules", "runs", "run_events")


async def test_loading_twice_writes_nothing_and_leaves_what_was_changed_by_hand(
    server: EmbeddedServer, clone_database: CloneDatabase
) -> None:
    loaded = Demo(server, clone_database(), clock.now())
    await loaded.load(now=loaded.now, days=2)
    before = {table: loaded.rows(table) for table in TABLES}
    assert len(before["runs"]) > 1000
    await loaded.load(now=loaded.now, days=2)
    assert {table: loaded.rows(table) for table in TABLES} == before
    with psycopg.connect(loaded.superuser_url) as connection:
        connection.execute("DELETE FROM alert_rules WHERE channel = 'webhook'")
        connection.execute("UPDATE pipelines SET owner = 'me', is_active = false WHERE slug = 'lab_results_ingest'")
        connection.execute("UPDATE pipelines SET slug = 'mine' WHERE slug = 'erp_stock_levels'")
    before = {table: loaded.rows(table) for table in TABLES}
    await loaded.load(now=loaded.now, days=2)
    assert {table: loaded.rows(table) for table in TABLES} == before


def _ended_after(row: dict[str, Any], time: datetime) -> bool:
    """Tell whether a run ended after a time, or is under way."""
    return row["finished_at"] is None or row["finished_at"] > time


async def test_load_a_day_later_adds_runs_and_leaves_those_that_ended(
    server: EmbeddedServer, clone_database: CloneDatabase
) -> None:
    loaded = Demo(server, clone_database(), clock.now() - DAY)
    await loaded.load(now=loaded.now, days=2)
    before = loaded.rows("runs")
    due = {row["id"]: row["next_due_at"] for row in loaded.rows("pipelines").values()}
    await loaded.load(now=loaded.now + DAY, days=2)
    after = loaded.rows("runs")
    ended = {ctid: row for ctid, row in before.items() if row["status"] in TERMINAL}
    touched = {row["id"] for ctid, row in ended.items() if after.get(ctid) != row}
    # an attempt that had failed just then may have been followed by another one since
    again = {row["id"] for row in after.values() if row["attempt"] > 1 and _ended_after(row, loaded.now)}
    assert touched <= again
    new = {row["id"] for row in after.values()} - {row["id"] for row in before.values()}
    assert len(new) > 500
    assert all(row["run_at"] > loaded.now - timedelta(hours=1) for row in after.values() if row["id"] in new)
    assert all(row["status"] in TERMINAL for row in after.values() if row["run_at"] < loaded.now)
    later = {row["id"]: row["next_due_at"] for row in loaded.rows("pipelines").values()}
    assert later.keys() == due.keys()
    assert len([1 for key in due if due[key] and later[key] > due[key]]) > 15
    assert len(loaded.rows("alert_rules")) == sum(len(client.rules) for client in CLIENTS)


def test_load_says_what_came_and_where_to_look(fleet: Demo) -> None:
    assert [line.split(",")[0] for line in fleet.said[:3]] == [f"demo: {client.name}" for client in CLIENTS]
    assert all(path in fleet.said[-1] for path in ("health/failing", "health/changes", "health/flaky", "health/late"))


def test_fleet_is_what_the_api_would_take() -> None:
    names = set()
    for client in CLIENTS:
        for row in client.pipelines:
            NewPipeline.model_validate(
                {"name": row.name, "slug": row.slug, "platform": row.platform, "pipeline_type": row.pipeline_type}
                | {"environment": row.environment, "success_target": row.success_target, "owner": row.owner}
            )
            names.add((client.slug, row.slug))
        for rule in client.rules:
            assert alert_rules.check_parameters(rule.rule_type, rule.threshold, rule.window_minutes) == []
            assert alert_rules.check_destination(rule.channel, rule.destination) == []
            assert rule.pipeline is None or (client.slug, rule.pipeline) in names
    assert len(names) == 30


def told(now: datetime) -> Iterator[tuple[plan.Job, set[Status], datetime | None, datetime | None]]:
    """Yield each pipeline with the statuses its runs have now, its latest start, and when it is late then."""
    for client in CLIENTS:
        for row in client.pipelines:
            job = plan.Job(client.slug, row, UUID(int=0))
            by_run = {}
            starts = []
            for o in plan.observations(job, since=now - 8 * DAY, now=now, first_load=now):
                by_run[o.external_run_id] = o.status
                starts += [o.started_at or o.finished_at] if o.status is not Status.QUEUED else []
            latest = max((start for start in starts if start is not None), default=None)
            deadline = None
            if row.schedule is not None and latest is not None:
                deadline = rules.next_due(row.schedule, latest) + rules.grace(row.schedule)
            yield job, set(by_run.values()), latest, deadline


@pytest.mark.parametrize("hours", [0, 53.4, 137.9])
def test_story_does_not_depend_on_the_hour_of_the_load(hours: float) -> None:
    now = datetime(2026, 3, 27, 23, 0, 30, tzinfo=UTC) + timedelta(hours=hours)  # clocks change on the 29th
    late, statuses = set(), set()
    for job, seen, latest, deadline in told(now):
        statuses |= seen
        if deadline is not None and deadline < now:
            late.add(job.row.name)
        assert latest is None or latest <= now
    assert late == {"sap_daily_sales_export", "edi_214_inbound"}
    assert statuses == set(Status)

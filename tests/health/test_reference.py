"""The health reads agree with the same rules in Python, on fleets made at random and told out of order."""

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from headway.core import clock
from tests.api import Api
from tests.health.reference import Json, Past, stamp, sure, time, walk

Db = psycopg.Connection[dict[str, Any]]

STATUSES = ["success"] * 4 + ["failed"] * 4 + ["canceled", "skipped"]
FIELDS = {"pipeline_id", "pipeline_name", "client_id", "client_slug", "platform", "environment"}


def tell(chance: random.Random, pipeline_id: str, now: datetime) -> list[Json]:
    """Make up what is told of one pipeline's runs."""
    told: list[Json] = []
    for number in range(chance.choice([0, 1, 2, 4, 7])):
        at = now - timedelta(minutes=10 * chance.randint(1, 6 * 24 * 8))
        attempts = chance.choice([1, 1, 1, 2, 3])
        for attempt in range(1, attempts + 1):
            run = {"pipeline_id": pipeline_id, "external_run_id": f"run-{number}", "attempt": attempt}
            end = at + timedelta(minutes=10 * chance.randint(0, 30))
            is_under_way = attempt == attempts and (chance.random() < 0.25 or end > now)
            if chance.random() < 0.5 or is_under_way:
                told.append(run | {"status": chance.choice(["queued", "running"]), "started_at": stamp(at)})
            if not is_under_way:
                times = chance.choice([{"finished_at": stamp(end)}, {"observed_at": stamp(end)}])
                if chance.random() < 0.7:
                    times["started_at"] = stamp(at)
                status = chance.choice(STATUSES)
                told.append(run | times | {"status": status, "error_message": f"{status} {number}.{attempt}"})
            at = end + timedelta(minutes=10 * chance.randint(0, 60))
            if at > now:
                break
    return told


async def make_fleet(api: Api, db: Db, chance: random.Random, now: datetime) -> list[Past]:
    """Make pipelines of two clients, some with schedules and some deactivated, and tell their runs out of order."""
    pipelines, observations = [], []
    for number in range(40):
        schedule = chance.choice(
            [
                None,
                {"every_seconds": 86_400, "grace_seconds": 3600},
                {"cron": "0 6 * * *", "timezone": "Europe/Berlin", "grace_seconds": 3600},
            ]
        )
        made = await api.make_pipeline(chance.choice(["acme", "globex"]), f"p{number}", schedule=schedule)
        if schedule is not None:
            due = now - timedelta(hours=chance.randint(0, 24 * 8))
            db.execute("UPDATE pipelines SET next_due_at = %s WHERE id = %s", (due, made["id"]))
        pipelines.append(made)
        observations += tell(chance, made["id"], now)
    chance.shuffle(observations)
    for begin in range(0, len(observations), 60):
        slice_ = observations[begin : begin + 60]
        assert (await api.report(*slice_, *slice_[:5]))["rejected"] == 0
    for made in pipelines[:3]:
        await api.delete(f"/pipelines/{made['id']}")
    runs = await walk(api, "/runs", limit=1000)
    events = {run["id"]: (await api.get(f"/runs/{run['id']}/events")).json() for run in runs}
    due_at = {str(row["id"]): row["next_due_at"] for row in db.execute("SELECT id, next_due_at FROM pipelines")}
    return [
        Past(p, [run for run in runs if run["pipeline_id"] == p["id"]], events, due_at[p["id"]]) for p in pipelines[3:]
    ]


def expected(fleet: list[Past], ask: Callable[[Past], Json | None], key: Callable[[Json], Any]) -> list[Json]:
    found = [{"pipeline_id": past.pipeline["id"]} | answer for past in fleet if (answer := ask(past)) is not None]
    return sorted(found, key=key)


def bare(items: list[Json]) -> list[Json]:
    """Return items without what all of them begin with but the id, their times parsed."""
    for item in items:
        assert item.keys() >= FIELDS
    return [
        {
            name: time(value) if name.endswith(("_at", "_since")) else value
            for name, value in item.items()
            if name not in FIELDS - {"pipeline_id"}
        }
        for item in items
    ]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_health_reads_agree_with_the_rules_in_python(api: Api, db: Db, seed: int) -> None:
    now = clock.now().replace(second=0, microsecond=0)
    fleet = await make_fleet(api, db, random.Random(seed), now)  # noqa: S311 - made-up runs
    assert sum(len(past.ends) > len(past.runs) for past in fleet) > 3, "too few superseded attempts to prove anything"

    failing = expected(fleet, Past.failing, lambda f: (f["failing_since"], f["pipeline_id"]))
    assert len(failing) > 3
    assert bare(await walk(api, "/health/failing", limit=4)) == failing

    for days in (2, 5, 30):
        # no end lies so near to the edge of the window that the time between two clocks matters
        since = clock.now() - timedelta(days=days)
        flaky = expected(
            fleet,
            lambda past, since=since: past.flaky(since),  # type: ignore[misc]
            lambda f: (-f["flips"], -f["failures"], f["pipeline_id"]),
        )
        assert bare(await walk(api, "/health/flaky", days=days, limit=3)) == flaky

    kinds = set()
    for hours in (6, 24, 72, 24 * 7, 24 * 20):
        since = now - timedelta(hours=hours)
        changes = expected(
            fleet,
            lambda past, since=since: past.change(since, clock.now()),  # type: ignore[misc]
            lambda c: (c["changed_at"], c["pipeline_id"]),
        )[::-1]
        kinds |= {change["change"] for change in changes}
        assert bare(await walk(api, "/health/changes", since=stamp(since), limit=3)) == changes
    assert kinds == {"newly_failing", "recovered", "new", "silent"}

    late = [past for past in fleet if state(past, clock.now()) == "late"]
    assert [
        (sure(item["deadline"]), item["pipeline_id"]) for item in await walk(api, "/health/late", limit=2)
    ] == sorted((past.deadline, past.pipeline["id"]) for past in late)

    for client in ("acme", "globex"):
        mine = [
            past for past in fleet if past.pipeline["client_id"] == (await api.get(f"/clients/{client}")).json()["id"]
        ]
        counts = (await api.get(f"/clients/{client}/runs/summary")).json()["pipelines"]
        states = [state(past, clock.now()) for past in mine]
        assert counts == {"total": len(mine)} | {
            word: states.count(word) for word in ("failing", "late", "healthy", "unknown")
        }


def state(past: Past, now: datetime) -> str:
    if past.failing() is not None:
        return "failing"
    if past.is_late(now):
        return "late"
    return (
        "healthy"
        if any(run["status"] in {"success", "failed", "canceled", "skipped"} for run in past.runs)
        else "unknown"
    )

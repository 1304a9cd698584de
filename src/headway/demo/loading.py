"""Loads the demo fleet: inventory where it is missing, then what its runs told, through the one writer of runs.

Called by ``headway up --demo``, every time it starts: the same observations change nothing, so only what has happened
since is added. The story's times count from the first load, which is when the fleet's clients were made.
"""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from headway.access.principal import EVERYONE
from headway.clients.service import new_ping_key
from headway.core import clock, ids
from headway.core.db import Database
from headway.demo import plan, queries
from headway.demo.fleet import CLIENTS, DemoClient, DemoPipeline
from headway.demo.platforms import PLATFORMS
from headway.health import due
from headway.pipelines import schedule as rules
from headway.runs import sql, writer
from headway.runs.observation import RunObservation

BATCH = 5_000  # observations in one transaction
API = "http://127.0.0.1:8000/api/v1"


async def load(
    database_url: str,
    *,
    say: Callable[[str], None],
    now: datetime | None = None,
    days: int = 90,
    api: str = API,
) -> None:
    """Load the fleet and the runs of its last days into a database with the current schema."""
    now = clock.now() if now is None else now
    since = now - timedelta(days=days)
    database = Database(database_url, pool_size=1, on_connect=sql.STAGING)
    try:
        async with database.transaction() as connection:
            first_load, jobs = await _make_inventory(connection, since=since, now=now)
        for client in CLIENTS:
            mine = [job for job in jobs if job.client == client.slug]
            told = (o for job in mine for o in plan.observations(job, since=since, now=now, first_load=first_load))
            new = await _write(database, told, now=now)
            say(f"demo: {client.name}, {len(mine)} pipelines, {new:,} new runs of the last {days} days")
        await _advance_due(database, now=now)
    finally:
        await database.dispose()
    say(_what_to_look_at(api))


async def _write(database: Database, told: Iterator[RunObservation], *, now: datetime) -> int:
    """Write observations, a batch a transaction; returns how many runs are new."""
    new = 0
    while batch := list(islice(told, BATCH)):
        submission = writer.Submission(EVERYONE)
        for index, observation in enumerate(batch):
            submission.add(observation, index)
        async with database.transaction() as connection:
            (outcome,) = await writer.write(connection, [submission], now=now)
        new += outcome.inserted
    return new


async def _advance_due(database: Database, *, now: datetime) -> None:
    """Note the next slot of each pipeline, as the worker does: who is late is right at once."""
    more = True
    while more:
        async with database.transaction() as connection:
            more = await due.advance_due(connection, now=now)


async def _make_inventory(
    connection: AsyncConnection, *, since: datetime, now: datetime
) -> tuple[datetime, list[plan.Job]]:
    """Make what is missing of the fleet; returns the time of the first load, and what there is to tell runs of."""
    made = await queries.insert_clients(connection, rows=[_client(client, now) for client in CLIENTS])
    known = await queries.list_clients(connection, slugs=[client.slug for client in CLIENTS])
    clients = [(client, known[client.slug][0]) for client in CLIENTS if client.slug in known]
    wanted = [
        _pipeline(client, row, known[client.slug][0], since, now) for client, _ in clients for row in client.pipelines
    ]
    await queries.insert_pipelines(connection, rows=wanted)
    pipelines = await queries.list_pipelines(connection, client_ids=[client_id for _, client_id in clients])
    # Rules come with their client alone: who removed or changed one does not want it back.
    new = [(client, client_id) for client, client_id in clients if client.slug in made]
    await queries.insert_rules(connection, rows=_rules(new, pipelines, now))
    jobs = [
        plan.Job(client.slug, row, pipelines[client_id, row.slug])
        for client, client_id in clients
        for row in client.pipelines
        if (client_id, row.slug) in pipelines
    ]
    return min((made_at for _, made_at in known.values()), default=now), jobs


def _client(client: DemoClient, now: datetime) -> dict[str, Any]:
    return {
        "id": ids.new_id(),
        "slug": client.slug,
        "name": client.name,
        "tags": list(client.tags),
        "is_active": True,
        "ping_key": new_ping_key(),
        "created_at": now,
        "updated_at": now,
    }


def _pipeline(client: DemoClient, row: DemoPipeline, client_id: UUID, since: datetime, now: datetime) -> dict[str, Any]:
    return {
        "id": ids.new_id(),
        "client_id": client_id,
        "slug": row.slug,
        "name": row.name,
        "platform": row.platform,
        "pipeline_type": row.pipeline_type,
        "external_id": f"{client.slug}-{row.environment}/{row.name}",
        "environment": row.environment,
        "description": row.description,
        "url": PLATFORMS[row.platform].page.format(client=client.slug, job=row.slug),
        "tags": list(row.tags),
        "owner": row.owner,
        "schedule": row.schedule,
        "success_target": row.success_target,
        "is_active": True,
        "ping_uuid": uuid4(),
        # from the first slot on: the runs that follow move it to the one after the last
        "next_due_at": None if row.schedule is None else rules.next_due(row.schedule, since),
        "created_at": now,
        "updated_at": now,
    }


def _rules(
    clients: list[tuple[DemoClient, UUID]], pipelines: dict[tuple[UUID, str], UUID], now: datetime
) -> list[dict[str, Any]]:
    return [
        {
            "id": ids.new_id(),
            "client_id": client_id,
            "pipeline_id": None if rule.pipeline is None else pipelines[client_id, rule.pipeline],
            "rule_type": rule.rule_type,
            "threshold": rule.threshold,
            "window_minutes": rule.window_minutes,
            "channel": rule.channel,
            "destination": rule.destination,
            "is_enabled": rule.is_enabled,
            "created_at": now,
            "updated_at": now,
        }
        for client, client_id in clients
        for rule in client.rules
    ]


def _what_to_look_at(api: str) -> str:
    looks = {
        "failing now": "health/failing",
        "changed since yesterday": "health/changes",
        "flaky": "health/flaky?days=30",
        "late": "health/late",
        "a client's day": f"clients/{CLIENTS[0].slug}/runs/summary",
        "by platform and day": "health/timeseries?bucket=day&group_by=platform",
        "runs under way": "runs?status=running&status=queued",
    }
    lines = [f"  {what:<24} curl '{api}/{path}'" for what, path in looks.items()]
    return "\n".join(["demo: look at", *lines])

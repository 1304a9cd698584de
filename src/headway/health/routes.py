"""The API of health: what is failing, what changed, what is flaky, what is late, and how it went over time."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

import sqlalchemy as sa
from fastapi import Depends, Query
from sqlalchemy.ext.asyncio import AsyncConnection

from headway.access.gate import Caller, router
from headway.clients.service import UnknownClientError, reference
from headway.core import clock, paging
from headway.core.db import Connection
from headway.core.errors import InvalidInputError, Issue
from headway.core.paging import Cursor, Limit, Page
from headway.core.validation import FilterText
from headway.core.windows import OptionalWindow, Since, future_since
from headway.health import ends_queries, queries
from headway.health.fleet import FleetFilter
from headway.health.schemas import (
    Change,
    Durations,
    Failing,
    Flaky,
    Late,
    LatestRun,
    PipelineCounts,
    Point,
    StatusCounts,
    Summary,
    Timeseries,
)
from headway.pipelines.schemas import Environment
from headway.runs.queries import find_client

routes = router("health")

DAY = timedelta(days=1)


async def _fleet(
    connection: Connection,
    caller: Caller,
    client: FilterText = None,
    platform: FilterText = None,
    environment: Environment | None = None,
) -> FleetFilter:
    client_id = caller.client_id if client is None else await _client_id(connection, caller, client)
    return FleetFilter(client_id, platform, environment)


Fleet = Annotated[FleetFilter, Depends(_fleet)]


async def _client_id(connection: AsyncConnection, caller: Caller, client: str) -> UUID:
    client_id = await find_client(connection, client=reference(client))
    if client_id is None or not caller.sees(client_id):
        raise UnknownClientError
    return client_id


@routes.get("/clients/{client}/runs/summary")
async def get_summary(
    client: str,
    connection: Connection,
    caller: Caller,
    window: OptionalWindow,
    platform: FilterText = None,
    environment: Environment | None = None,
) -> Summary:
    """Sum up a client's runs of a window, by default the last 24 hours, and how its pipelines stand."""
    client_id = await _client_id(connection, caller, client)
    now = clock.now()
    since, until = window.closed(now, DAY)
    narrowed = FleetFilter(client_id, platform, environment)
    runs = await queries.count_runs(connection, narrowed=narrowed, since=since, until=until)
    decided = runs.success + runs.failed
    return Summary(
        client_id=client_id,
        since=since,
        until=until,
        total_runs=runs.total,
        status_counts=StatusCounts.model_validate(runs),
        success_rate=runs.success / decided if decided else None,
        duration_ms=None if runs.max is None else Durations(p50=runs.p50, p95=runs.p95, max=runs.max),
        pipelines=PipelineCounts.model_validate(await queries.count_pipelines(connection, narrowed=narrowed, now=now)),
        latest_by_pipeline=[
            LatestRun.model_validate(row)
            for row in await queries.list_latest(connection, narrowed=narrowed, until=until)
        ],
    )


def _by_time(column: str, rows: Sequence[sa.Row[Any]], limit: int, asked: str, model: type[Any]) -> Page[Any]:
    """Make a page of rows that are ordered by a time, then by pipeline."""

    def key(row: sa.Row[Any]) -> tuple[datetime, UUID]:
        return getattr(row, column), row.pipeline_id

    return paging.page(rows, limit=limit, asked=asked, key=key, item=model.model_validate)


def _after(cursor: str | None, asked: str) -> tuple[datetime, UUID] | None:
    after = paging.decode(cursor, asked, (datetime, UUID))
    return None if after is None else (after[0], after[1])


@routes.get("/health/failing")
async def list_failing(
    connection: Connection, fleet: Fleet, limit: Limit = paging.DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[Failing]:
    """List the pipelines whose latest run that ended and was not skipped failed, the longest failing first."""
    asked = paging.question("failing", **fleet._asdict())
    after = _after(cursor, asked)
    rows = await queries.list_failing(connection, narrowed=fleet, after=after, limit=limit + 1)
    return _by_time("failing_since", rows, limit, asked, Failing)


@routes.get("/health/changes")
async def list_changes(
    connection: Connection,
    fleet: Fleet,
    since: Since = None,
    limit: Limit = paging.DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[Change]:
    """List the pipelines whose health differs from that at `since` (24 hours ago), the latest change first.

    Lateness at that time is judged by the run that is expected now.
    """
    asked = paging.question("changes", since=since, **fleet._asdict())
    after = _after(cursor, asked)
    now = clock.now()
    since = since or now - DAY
    if since >= now:
        raise future_since()
    rows = await ends_queries.list_changes(
        connection, narrowed=fleet, since=since, now=now, after=after, limit=limit + 1
    )
    return _by_time("changed_at", rows, limit, asked, Change)


@routes.get("/health/flaky")
async def list_flaky(
    connection: Connection,
    fleet: Fleet,
    days: Annotated[int, Query(ge=1, le=366, description="how far back")] = 30,
    limit: Limit = paging.DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[Flaky]:
    """List the pipelines that went back and forth, most flips first, then failures; every attempt's end counts."""
    asked = paging.question("flaky", days=days, **fleet._asdict())
    after = paging.decode(cursor, asked, (int, int, UUID))
    rows = await ends_queries.list_flaky(
        connection,
        narrowed=fleet,
        since=clock.now() - timedelta(days=days),
        after=None if after is None else (after[0], after[1], after[2]),
        limit=limit + 1,
    )

    def key(row: sa.Row[Any]) -> tuple[int, int, UUID]:
        return -row.flips, -row.failures, row.pipeline_id

    return paging.page(rows, limit=limit, asked=asked, key=key, item=Flaky.model_validate)


@routes.get("/health/late")
async def list_late(
    connection: Connection, fleet: Fleet, limit: Limit = paging.DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[Late]:
    """List the pipelines whose expected run has not started within its grace, the earliest deadline first.

    A failing one is told by `/health/failing` alone: each pipeline is in one state of health.
    """
    asked = paging.question("late", **fleet._asdict())
    after = _after(cursor, asked)
    rows = await queries.list_late(connection, narrowed=fleet, now=clock.now(), after=after, limit=limit + 1)
    return _by_time("deadline", rows, limit, asked, Late)


class TooManyPointsError(InvalidInputError):
    """Too many points."""

    code = "too_many_points"


@routes.get("/health/timeseries")
async def get_timeseries(
    connection: Connection,
    fleet: Fleet,
    window: OptionalWindow,
    bucket: Literal["hour", "day", "week"] = "day",
    group_by: Literal["status", "client", "platform", "pipeline"] = "status",
) -> Timeseries:
    """Count runs by run_at, in UTC buckets (weeks begin on Monday), by default of the last 7 days."""
    since, until = window.closed(clock.now(), timedelta(days=7))
    rows = await queries.list_points(
        connection, narrowed=fleet, bucket=bucket, group_by=group_by, since=since, until=until
    )
    if len(rows) > queries.MAX_POINTS:
        detail = f"more than {queries.MAX_POINTS} points: ask for larger buckets, a shorter window or fewer pipelines"
        raise TooManyPointsError(detail, issues=[Issue("/query/bucket", "too_many_points", detail)])
    return Timeseries(bucket=bucket, group_by=group_by, points=[Point.model_validate(row) for row in rows])

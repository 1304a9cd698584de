"""The statements of the health reads on how pipelines stand, and on the runs of a window.

A pipeline is *failing* when its latest run that ended and was not skipped failed; *late* when its schedule's next run
has not started within its grace; *unknown* before its first end; else *healthy*: the first that holds. What also asks
for superseded attempts (flaky, changes) is in ``ends_queries.py``, what the fleet is in ``fleet.py``.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headway.health.fleet import (
    END,
    HEAD,
    IN_TIME,
    LATEST_DECIDED,
    LATEST_GOOD,
    LATEST_SUCCESS,
    MAX_STREAK,
    MET_AFTER,
    STREAK,
    FleetFilter,
    fetch,
    fleet,
    place,
)

MAX_PIPELINES = 1000
MAX_POINTS = 10_000


async def list_failing(
    connection: AsyncConnection, *, narrowed: FleetFilter, after: tuple[datetime, UUID] | None, limit: int
) -> Sequence[sa.Row[Any]]:
    """Return a page of failing pipelines, the longest failing first, then by id.

    Indexes: ix_runs_pipeline_id_run_at, of the streaks ix_runs_pipeline_id_rare.
    """
    cte, parameters = fleet(narrowed)
    page = "WHERE (failing_since, pipeline_id) > (:after_at, :after_id)" if after else ""
    statement = f"""
WITH {cte}, failing AS (
    SELECT {HEAD}, latest.id AS last_failed_run_id, latest.error_message AS last_error, first.failing_since, good.id AS good_id,
           good.run_at AS good_run_at
    FROM fleet f
    JOIN LATERAL {LATEST_DECIDED} latest ON latest.status = 'failed'
    LEFT JOIN LATERAL {LATEST_GOOD} good ON true
    CROSS JOIN LATERAL (SELECT {END} AS failing_since FROM {STREAK} ORDER BY r.run_at, r.id LIMIT 1) first
), page AS (
    SELECT * FROM failing {page} ORDER BY failing_since, pipeline_id LIMIT :limit
)
SELECT f.*, streak.consecutive_failures, success.ended_at AS last_success_at
FROM page f
CROSS JOIN LATERAL (SELECT f.good_id AS id, f.good_run_at AS run_at) good
CROSS JOIN LATERAL (
    SELECT count(*) AS consecutive_failures FROM (SELECT FROM {STREAK} LIMIT {MAX_STREAK}) counted
) streak
LEFT JOIN LATERAL {LATEST_SUCCESS} success ON true
ORDER BY f.failing_since, f.pipeline_id"""
    return await fetch(connection, statement, parameters | place(after) | {"limit": limit})


async def list_late(
    connection: AsyncConnection,
    *,
    narrowed: FleetFilter,
    now: datetime,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> Sequence[sa.Row[Any]]:
    """Return a page of late pipelines that are not failing, the earliest deadline first, then by id.

    Indexes: ix_runs_pipeline_id_run_at; the pipelines are few, and filtered by their deadlines.
    """
    cte, parameters = fleet(narrowed)
    page = "AND (f.deadline, f.pipeline_id) > (:after_at, :after_id)" if after else ""
    statement = f"""
WITH {cte}, late AS (
    SELECT f.* FROM fleet f LEFT JOIN LATERAL {IN_TIME} met ON true LEFT JOIN LATERAL {LATEST_DECIDED} decided ON true
    WHERE f.deadline < :now AND met.is_in_time IS NULL AND decided.status IS DISTINCT FROM 'failed' {page}
    ORDER BY f.deadline, f.pipeline_id LIMIT :limit
)
SELECT {HEAD}, f.next_due_at AS expected_at, f.deadline, latest.run_at AS last_run_at
FROM late f
LEFT JOIN LATERAL (
    SELECT r.run_at FROM runs r WHERE r.pipeline_id = f.pipeline_id ORDER BY r.run_at DESC, r.id DESC LIMIT 1
) latest ON true
ORDER BY f.deadline, f.pipeline_id"""
    return await fetch(connection, statement, parameters | place(after) | {"now": now, "limit": limit})


async def count_pipelines(connection: AsyncConnection, *, narrowed: FleetFilter, now: datetime) -> sa.Row[Any]:
    """Return how many pipelines are in each state of health, one row. Index: ix_runs_pipeline_id_run_at."""
    cte, parameters = fleet(narrowed)
    statement = f"""
WITH {cte}, judged AS (
    SELECT coalesce(latest.status = 'failed', false) AS is_failing, met.is_in_time IS NULL AS is_late,
           latest.id IS NOT NULL OR skipped.id IS NOT NULL AS is_known
    FROM fleet f
    LEFT JOIN LATERAL {LATEST_DECIDED} latest ON true
    LEFT JOIN LATERAL {IN_TIME} met ON true
    LEFT JOIN LATERAL (
        SELECT r.id FROM runs r WHERE latest.id IS NULL AND r.pipeline_id = f.pipeline_id AND r.status = 'skipped'
        ORDER BY r.run_at DESC, r.id DESC LIMIT 1
    ) skipped ON true
)
SELECT count(*) AS total, count(*) FILTER (WHERE is_failing) AS failing,
       count(*) FILTER (WHERE NOT is_failing AND is_late) AS late,
       count(*) FILTER (WHERE NOT is_failing AND NOT is_late AND NOT is_known) AS unknown,
       count(*) FILTER (WHERE NOT is_failing AND NOT is_late AND is_known) AS healthy
FROM judged"""
    (row,) = await fetch(connection, statement, parameters | {"now": now})
    return row


async def count_runs(
    connection: AsyncConnection, *, narrowed: FleetFilter, since: datetime, until: datetime
) -> sa.Row[Any]:
    """Return the runs of a window by status, and the percentiles of their durations in whole ms, one row.

    Percentiles are interpolated between the two nearest. Index: ix_runs_pipeline_id_run_at.
    """
    cte, parameters = fleet(narrowed)
    statement = f"""
WITH {cte}
SELECT count(*) AS total, {_status_counts("r")},
       percentile_cont(0.5) WITHIN GROUP (ORDER BY d.ms) AS p50, percentile_cont(0.95) WITHIN GROUP (ORDER BY d.ms) AS p95,
       max(d.ms) AS max
FROM fleet f
JOIN runs r ON r.pipeline_id = f.pipeline_id AND r.run_at >= :since AND r.run_at < :until
CROSS JOIN LATERAL (
    SELECT CASE WHEN r.finished_at >= r.started_at
                THEN floor(extract(epoch FROM r.finished_at - r.started_at) * 1000)::float8 END AS ms
) d"""
    (row,) = await fetch(connection, statement, parameters | {"since": since, "until": until})
    return row


async def list_latest(connection: AsyncConnection, *, narrowed: FleetFilter, until: datetime) -> Sequence[sa.Row[Any]]:
    """Return the first pipelines by name, then id, with the latest run of each before a time, and its streak of failures.

    Indexes: ix_runs_pipeline_id_run_at, of the streaks ix_runs_pipeline_id_rare.
    """
    cte, parameters = fleet(narrowed)
    before = "r.pipeline_id = f.pipeline_id AND r.run_at < :until"
    statement = f"""
WITH {cte}
SELECT f.pipeline_id, f.pipeline_name, f.platform, f.environment, latest.status AS latest_status,
       latest.run_at AS latest_run_at, latest.id AS latest_run_id, streak.consecutive_failures
FROM (SELECT * FROM fleet ORDER BY pipeline_name, pipeline_id LIMIT {MAX_PIPELINES}) f
LEFT JOIN LATERAL (
    SELECT r.id, r.status, r.run_at FROM runs r WHERE {before} ORDER BY r.run_at DESC, r.id DESC LIMIT 1
) latest ON true
LEFT JOIN LATERAL (
    SELECT r.id, r.run_at FROM runs r WHERE {before} AND r.status IN ('success', 'canceled')
    ORDER BY r.run_at DESC, r.id DESC LIMIT 1
) good ON true
CROSS JOIN LATERAL (
    SELECT count(*) AS consecutive_failures FROM (SELECT FROM {STREAK} AND r.run_at < :until LIMIT {MAX_STREAK}) counted
) streak
ORDER BY f.pipeline_name, f.pipeline_id"""
    return await fetch(connection, statement, parameters | {"until": until})


_GROUPS: Mapping[str, str] = {
    "status": "r.status",
    "client": "f.client_slug",
    "platform": "f.platform",
    "pipeline": "f.pipeline_id::text",
}


async def list_points(
    connection: AsyncConnection, *, narrowed: FleetFilter, bucket: str, group_by: str, since: datetime, until: datetime
) -> Sequence[sa.Row[Any]]:
    """Return runs by time bucket (UTC; weeks begin on Monday), then group, one row more than may be shown.

    Indexes: ix_runs_run_at, of few pipelines ix_runs_pipeline_id_run_at.
    """
    cte, parameters = fleet(narrowed)
    statement = f"""
WITH {cte}
SELECT date_trunc(:bucket, r.run_at, 'UTC') AS time, {_GROUPS[group_by]} COLLATE "C" AS "group", count(*) AS total,
       {_status_counts("r")}
FROM fleet f JOIN runs r ON r.pipeline_id = f.pipeline_id AND r.run_at >= :since AND r.run_at < :until
GROUP BY 1, 2 ORDER BY 1, 2 LIMIT {MAX_POINTS + 1}"""
    return await fetch(connection, statement, parameters | {"bucket": bucket, "since": since, "until": until})


async def list_states(connection: AsyncConnection, *, narrowed: FleetFilter) -> Sequence[sa.Row[Any]]:
    """Return each pipeline that has run, by client and name, with its latest run and its last success, for the metrics.

    Index: ix_runs_pipeline_id_run_at.
    """
    cte, parameters = fleet(narrowed)
    statement = f"""
WITH {cte}
SELECT f.client_slug, f.pipeline_id, f.pipeline_name, f.platform, f.environment, latest.status, latest.run_at,
       success.ended_at AS last_success_at
FROM fleet f
CROSS JOIN LATERAL (
    SELECT r.status, r.run_at FROM runs r WHERE r.pipeline_id = f.pipeline_id ORDER BY r.run_at DESC, r.id DESC LIMIT 1
) latest
LEFT JOIN LATERAL {LATEST_SUCCESS} success ON true
ORDER BY f.client_slug, f.pipeline_name, f.pipeline_id"""
    return await fetch(connection, statement, parameters)


def _status_counts(run: str) -> str:
    words = ("queued", "running", "success", "failed", "canceled", "skipped")
    return ", ".join(f"count(*) FILTER (WHERE {run}.status = '{word}') AS {word}" for word in words)


async def claim_met(connection: AsyncConnection, *, now: datetime, limit: int) -> Sequence[sa.Row[Any]]:
    """Claim pipelines whose next slot has come and which some run has met, a row each with its latest run, by id.

    Locked, so that two workers do not do the same twice. Indexes: ix_pipelines_next_due_at, ix_runs_pipeline_id_run_at.
    """
    statement = f"""
SELECT p.id, p.schedule, latest.run_at
FROM pipelines p
CROSS JOIN LATERAL (
    SELECT r.run_at FROM runs r
    WHERE r.pipeline_id = p.id AND r.run_at > {MET_AFTER.format(p="p")} AND r.status <> 'queued'
    ORDER BY r.run_at DESC, r.id DESC LIMIT 1
) latest
WHERE p.next_due_at IS NOT NULL AND p.is_active AND p.next_due_at <= :now
ORDER BY p.id LIMIT :limit
FOR NO KEY UPDATE OF p SKIP LOCKED"""
    return await fetch(connection, statement, {"now": now, "limit": limit})


async def set_next_due(connection: AsyncConnection, *, due: Mapping[UUID, datetime]) -> None:
    """Note when the next run of each pipeline is expected, in one statement. Index: pk_pipelines."""
    statement = """
UPDATE pipelines p SET next_due_at = d.due
FROM unnest(CAST(:ids AS uuid[]), CAST(:dues AS timestamptz[])) AS d(id, due) WHERE p.id = d.id"""
    await connection.execute(sa.text(statement), {"ids": list(due), "dues": list(due.values())})

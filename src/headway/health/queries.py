"""Every statement of the health reads.

All start from ``fleet``, the active pipelines of active clients that the caller asked for, and look each one's runs up
by index. A pipeline is *failing* when its latest run that ended and was not skipped failed; *late* when its schedule's
next run has not started within its grace; *unknown* before its first end; else *healthy*: the first that holds.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

MAX_STREAK = 1000
MAX_PIPELINES = 1000
MAX_POINTS = 10_000

# A run's end is known by finished_at; some sources tell only when they saw it.
_END = "coalesce({r}.finished_at, {r}.observed_at, {r}.run_at)"
# Ends that tell how a pipeline fares: a skipped run tells nothing, and stands in no streak.
_DECIDED = "('success', 'failed', 'canceled')"
_TERMINAL = "('success', 'failed', 'canceled', 'skipped')"


class FleetFilter(NamedTuple):
    """Which pipelines a health read is about; None is no matter."""

    client_id: UUID | None = None
    platform: str | None = None
    environment: str | None = None


def _fleet(narrowed: FleetFilter) -> tuple[str, dict[str, Any]]:
    """Return the CTE ``fleet``, a row a pipeline, and its parameters."""
    conditions = {"client_id": "p.client_id", "platform": "p.platform", "environment": "p.environment"}
    given = {name: value for name, value in narrowed._asdict().items() if value is not None}
    where = "".join(f" AND {conditions[name]} = :{name}" for name in given)
    return (
        f"""fleet AS (
    SELECT p.id AS pipeline_id, p.name AS pipeline_name, p.client_id, c.slug AS client_slug, p.platform, p.environment,
           p.next_due_at, p.next_due_at + make_interval(secs => (p.schedule->>'grace_seconds')::int) AS deadline
    FROM pipelines p JOIN clients c ON c.id = p.client_id
    WHERE p.is_active AND c.is_active{where}
)""",
        given,
    )


_HEAD = "f.pipeline_id, f.pipeline_name, f.client_id, f.client_slug, f.platform, f.environment"

# Of one pipeline f. Index of each: ix_runs_pipeline_id_run_at, walked back from the latest run.
_LATEST_DECIDED = f"""(
    SELECT r.id, r.status, r.run_at, r.error_message, {_END.format(r="r")} AS ended_at FROM runs r
    WHERE r.pipeline_id = f.pipeline_id AND r.status IN {_DECIDED}
    ORDER BY r.run_at DESC, r.id DESC LIMIT 1
)"""
_LATEST_GOOD = """(
    SELECT r.id, r.run_at FROM runs r
    WHERE r.pipeline_id = f.pipeline_id AND r.status IN ('success', 'canceled')
    ORDER BY r.run_at DESC, r.id DESC LIMIT 1
)"""
# Failed runs after the latest good one, "good". Index: ix_runs_failed.
_STREAK = """runs r WHERE r.pipeline_id = f.pipeline_id AND r.status = 'failed'
    AND (good.run_at IS NULL OR (r.run_at, r.id) > (good.run_at, good.id))"""
_IS_LATE = """(f.deadline < :now AND NOT EXISTS (
    SELECT FROM runs r WHERE r.pipeline_id = f.pipeline_id AND r.run_at >= f.next_due_at AND r.status <> 'queued'))"""
_HAS_ENDED = f"EXISTS (SELECT FROM runs r WHERE r.pipeline_id = f.pipeline_id AND r.status IN {_TERMINAL})"


async def list_failing(
    connection: AsyncConnection, *, narrowed: FleetFilter, after: tuple[datetime, UUID] | None, limit: int
) -> Sequence[sa.Row[Any]]:
    """Return a page of failing pipelines, the longest failing first, then by id."""
    fleet, parameters = _fleet(narrowed)
    page = "WHERE (failing_since, pipeline_id) > (:after_at, :after_id)" if after else ""
    statement = f"""
WITH {fleet}, failing AS (
    SELECT {_HEAD}, latest.id AS last_failed_run_id, latest.error_message AS last_error,
           first.failing_since, streak.consecutive_failures, success.last_success_at
    FROM fleet f
    JOIN LATERAL {_LATEST_DECIDED} latest ON latest.status = 'failed'
    LEFT JOIN LATERAL {_LATEST_GOOD} good ON true
    CROSS JOIN LATERAL (
        SELECT {_END.format(r="r")} AS failing_since FROM {_STREAK} ORDER BY r.run_at, r.id LIMIT 1
    ) first
    CROSS JOIN LATERAL (
        SELECT count(*) AS consecutive_failures FROM (SELECT FROM {_STREAK} LIMIT {MAX_STREAK}) counted
    ) streak
    LEFT JOIN LATERAL (
        SELECT {_END.format(r="r")} AS last_success_at FROM runs r
        WHERE r.pipeline_id = f.pipeline_id AND r.status = 'success'
        ORDER BY r.run_at DESC, r.id DESC LIMIT 1
    ) success ON true
)
SELECT * FROM failing {page} ORDER BY failing_since, pipeline_id LIMIT :limit"""
    return await _rows(connection, statement, parameters, after, limit)


async def list_late(
    connection: AsyncConnection,
    *,
    narrowed: FleetFilter,
    now: datetime,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> Sequence[sa.Row[Any]]:
    """Return a page of late pipelines, the earliest deadline first, then by id. Index: ix_pipelines_next_due_at."""
    fleet, parameters = _fleet(narrowed)
    page = "AND (f.deadline, f.pipeline_id) > (:after_at, :after_id)" if after else ""
    statement = f"""
WITH {fleet}
SELECT {_HEAD}, f.next_due_at AS expected_at, f.deadline, latest.run_at AS last_run_at
FROM fleet f
LEFT JOIN LATERAL (
    SELECT r.run_at FROM runs r WHERE r.pipeline_id = f.pipeline_id ORDER BY r.run_at DESC, r.id DESC LIMIT 1
) latest ON true
WHERE {_IS_LATE} {page}
ORDER BY f.deadline, f.pipeline_id LIMIT :limit"""
    return await _rows(connection, statement, parameters | {"now": now}, after, limit)


def _attempt_ends(since: str) -> str:
    """Return CTEs with the end of every attempt from a time on: ``ends``, a row an attempt, at its run's time then.

    The current attempt's end is the run's own; the ends of superseded attempts stand in the history alone. Those are
    found through their runs: an attempt that ended after a time was superseded after it, so its run was updated after
    it (a source's clock may be a day ahead). Indexes: ix_runs_pipeline_id_run_at, ix_runs_reattempted, pk_run_events.
    """
    return f"""superseded AS (
    SELECT f.pipeline_id, r.id AS run_id, e.attempt, e.at, e.ended_at, e.status
    FROM fleet f
    JOIN runs r ON r.pipeline_id = f.pipeline_id AND r.attempt > 1 AND r.updated_at >= {since} - interval '1 day'
    CROSS JOIN LATERAL (
        SELECT DISTINCT ON (e.attempt) e.attempt, e.status,
               coalesce(first.started_at, e.finished_at, e.last_occurred_at, e.recorded_at) AS at,
               coalesce(e.finished_at, e.last_occurred_at, e.recorded_at) AS ended_at
        FROM run_events e
        CROSS JOIN LATERAL (
            SELECT min(s.started_at) AS started_at FROM run_events s
            WHERE s.pipeline_id = e.pipeline_id AND s.external_run_id = e.external_run_id AND s.attempt = e.attempt
        ) first
        WHERE e.pipeline_id = r.pipeline_id AND e.external_run_id = r.external_run_id
          AND e.attempt < r.attempt AND e.status IN {_TERMINAL}
        ORDER BY e.attempt, e.last_occurred_at DESC NULLS LAST,
                 array_position(ARRAY['failed', 'canceled', 'skipped', 'success'], e.status)
    ) e
)"""


async def list_flaky(
    connection: AsyncConnection,
    *,
    narrowed: FleetFilter,
    since: datetime,
    after: tuple[int, int, UUID] | None,
    limit: int,
) -> Sequence[sa.Row[Any]]:
    """Return a page of pipelines whose ends changed between success and failure, most flips, then failures, first."""
    fleet, parameters = _fleet(narrowed)
    page = "AND (-n.flips, -n.failures, n.pipeline_id) > (:flips, :failures, :after_id)" if after else ""
    if after:
        parameters |= {"flips": after[0], "failures": after[1], "after_id": after[2]}
    statement = f"""
WITH {fleet}, {_attempt_ends(":since")}, ends AS (
    SELECT f.pipeline_id, r.run_at AS at, r.id AS run_id, r.attempt, r.status
    FROM fleet f JOIN runs r ON r.pipeline_id = f.pipeline_id AND r.run_at >= :since AND r.status IN {_DECIDED}
    UNION ALL
    SELECT pipeline_id, at, run_id, attempt, status FROM superseded WHERE at >= :since AND status IN {_DECIDED}
), ordered AS (
    SELECT pipeline_id, status,
           CASE WHEN status <> 'canceled' THEN
               lag(status) OVER (PARTITION BY pipeline_id, status = 'canceled' ORDER BY at, run_id, attempt) END AS before
    FROM ends
), counted AS (
    SELECT pipeline_id, count(*) AS total_runs, count(*) FILTER (WHERE status = 'failed') AS failures,
           count(*) FILTER (WHERE before <> status) AS flips
    FROM ordered GROUP BY pipeline_id
)
SELECT {_HEAD}, n.total_runs, n.failures, n.failures::float8 / n.total_runs AS failure_rate, n.flips
FROM counted n JOIN fleet f ON f.pipeline_id = n.pipeline_id
WHERE n.flips > 0 {page}
ORDER BY n.flips DESC, n.failures DESC, n.pipeline_id LIMIT :limit"""
    return await _rows(connection, statement, parameters | {"since": since}, None, limit)


async def list_changes(
    connection: AsyncConnection,
    *,
    narrowed: FleetFilter,
    since: datetime,
    now: datetime,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> Sequence[sa.Row[Any]]:
    """Return a page of pipelines whose health differs from that at ``since``, the latest change first, then by id.

    Only pipelines of which an end came since, or that are late now, are looked at more closely.
    """
    fleet, parameters = _fleet(narrowed)
    page = "WHERE (changed_at, pipeline_id) < (:after_at, :after_id)" if after else ""
    end = _END.format(r="r")
    statement = f"""
WITH {fleet}, {_attempt_ends(":since")}, judged AS (
    SELECT f.*, {_IS_LATE} AS is_late, latest.status = 'failed' AS is_failing, then.status = 'failed' AS was_failing,
           coalesce(then.was_known, false) AS was_known, {_HAS_ENDED} AS is_known
    FROM fleet f
    LEFT JOIN LATERAL {_LATEST_DECIDED} latest ON true
    LEFT JOIN LATERAL (
        -- how it stood then: the latest of the ends that had come by that time, superseded ones among them
        SELECT (array_agg(status ORDER BY at DESC, run_id DESC, attempt DESC) FILTER (WHERE status <> 'skipped'))[1] AS status,
               true AS was_known
        FROM (
            (SELECT r.run_at AS at, r.id AS run_id, r.attempt, r.status FROM runs r
             WHERE r.pipeline_id = f.pipeline_id AND r.status IN {_DECIDED} AND {end} <= :since
             ORDER BY r.run_at DESC, r.id DESC LIMIT 1)
            UNION ALL
            (SELECT r.run_at, r.id, r.attempt, r.status FROM runs r
             WHERE r.pipeline_id = f.pipeline_id AND r.status = 'skipped' AND {end} <= :since LIMIT 1)
            UNION ALL
            SELECT s.at, s.run_id, s.attempt, s.status FROM superseded s
            WHERE s.pipeline_id = f.pipeline_id AND s.ended_at <= :since
        ) past HAVING count(*) > 0
    ) then ON true
    WHERE latest.ended_at > :since OR f.deadline < :now
       OR EXISTS (SELECT FROM superseded s WHERE s.pipeline_id = f.pipeline_id)
       OR (latest.id IS NULL AND {_HAS_ENDED})
), changed AS (
    SELECT j.*, CASE
        WHEN is_failing AND was_failing IS NOT TRUE THEN 'newly_failing'
        WHEN is_failing THEN NULL
        WHEN is_late AND deadline > :since THEN 'silent'
        WHEN was_failing THEN 'recovered'
        WHEN is_known AND NOT was_known THEN 'new'
    END AS change
    FROM judged j
), dated AS (
    SELECT {_HEAD}, f.change,
           CASE WHEN f.change = 'silent' THEN f.deadline ELSE turn.ended_at END AS changed_at, turn.id AS run_id
    FROM changed f
    LEFT JOIN LATERAL {_LATEST_GOOD} good ON true
    LEFT JOIN LATERAL (
        (SELECT r.id, {end} AS ended_at FROM {_STREAK} AND f.change = 'newly_failing' ORDER BY r.run_at, r.id LIMIT 1)
        UNION ALL
        (SELECT r.id, {end} FROM runs r
         WHERE f.change = 'recovered' AND r.pipeline_id = f.pipeline_id AND r.status IN ('success', 'canceled')
           AND (r.run_at, r.id) > coalesce(
               (SELECT (l.run_at, l.id) FROM runs l WHERE l.pipeline_id = f.pipeline_id AND l.status = 'failed'
                ORDER BY l.run_at DESC, l.id DESC LIMIT 1), ('-infinity', r.id))
         ORDER BY r.run_at, r.id LIMIT 1)
        UNION ALL
        (SELECT r.id, {end} FROM runs r
         WHERE f.change = 'new' AND r.pipeline_id = f.pipeline_id AND r.status IN {_TERMINAL}
         ORDER BY r.run_at, r.id LIMIT 1)
    ) turn ON true
    WHERE f.change IS NOT NULL
)
SELECT * FROM dated {page} ORDER BY changed_at DESC, pipeline_id DESC LIMIT :limit"""
    return await _rows(connection, statement, parameters | {"since": since, "now": now}, after, limit)


async def count_runs(
    connection: AsyncConnection, *, narrowed: FleetFilter, since: datetime, until: datetime
) -> sa.Row[Any]:
    """Return the runs of a window by status, and the percentiles of their durations in ms, one row."""
    fleet, parameters = _fleet(narrowed)
    statement = f"""
WITH {fleet}
SELECT count(*) AS total, {_status_counts("r")},
       percentile_cont(0.5) WITHIN GROUP (ORDER BY d.ms) AS p50, percentile_cont(0.95) WITHIN GROUP (ORDER BY d.ms) AS p95,
       max(d.ms) AS max
FROM fleet f
JOIN runs r ON r.pipeline_id = f.pipeline_id AND r.run_at >= :since AND r.run_at < :until
CROSS JOIN LATERAL (
    SELECT CASE WHEN r.finished_at >= r.started_at THEN extract(epoch FROM r.finished_at - r.started_at)::float8 * 1000 END AS ms
) d"""
    return (await connection.execute(sa.text(statement), parameters | {"since": since, "until": until})).one()


async def count_pipelines(connection: AsyncConnection, *, narrowed: FleetFilter, now: datetime) -> sa.Row[Any]:
    """Return how many pipelines are in each state of health, one row."""
    fleet, parameters = _fleet(narrowed)
    statement = f"""
WITH {fleet}, judged AS (
    SELECT coalesce(latest.status = 'failed', false) AS is_failing, coalesce({_IS_LATE}, false) AS is_late,
           latest.id IS NOT NULL OR {_HAS_ENDED} AS is_known
    FROM fleet f LEFT JOIN LATERAL {_LATEST_DECIDED} latest ON true
)
SELECT count(*) AS total, count(*) FILTER (WHERE is_failing) AS failing,
       count(*) FILTER (WHERE NOT is_failing AND is_late) AS late,
       count(*) FILTER (WHERE NOT is_failing AND NOT is_late AND NOT is_known) AS unknown,
       count(*) FILTER (WHERE NOT is_failing AND NOT is_late AND is_known) AS healthy
FROM judged"""
    return (await connection.execute(sa.text(statement), parameters | {"now": now})).one()


async def list_latest(connection: AsyncConnection, *, narrowed: FleetFilter, until: datetime) -> Sequence[sa.Row[Any]]:
    """Return the first pipelines by name with the latest run of each before a time, and its streak of failures."""
    fleet, parameters = _fleet(narrowed)
    before = "r.pipeline_id = f.pipeline_id AND r.run_at < :until"
    statement = f"""
WITH {fleet}
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
    SELECT count(*) AS consecutive_failures FROM (SELECT FROM {_STREAK} AND r.run_at < :until LIMIT {MAX_STREAK}) counted
) streak
ORDER BY f.pipeline_name, f.pipeline_id"""
    return (await connection.execute(sa.text(statement), parameters | {"until": until})).all()


_GROUPS: Mapping[str, str] = {
    "status": "r.status",
    "client": "f.client_slug",
    "platform": "f.platform",
    "pipeline": "f.pipeline_id::text",
}


async def list_points(
    connection: AsyncConnection, *, narrowed: FleetFilter, bucket: str, group_by: str, since: datetime, until: datetime
) -> Sequence[sa.Row[Any]]:
    """Return runs by time bucket (UTC; weeks begin on Monday) and group, one row more than may be shown."""
    fleet, parameters = _fleet(narrowed)
    statement = f"""
WITH {fleet}
SELECT date_trunc(:bucket, r.run_at, 'UTC') AS time, {_GROUPS[group_by]} COLLATE "C" AS "group", count(*) AS total,
       {_status_counts("r")}
FROM fleet f JOIN runs r ON r.pipeline_id = f.pipeline_id AND r.run_at >= :since AND r.run_at < :until
GROUP BY 1, 2 ORDER BY 1, 2 LIMIT {MAX_POINTS + 1}"""
    parameters |= {"bucket": bucket, "since": since, "until": until}
    return (await connection.execute(sa.text(statement), parameters)).all()


async def list_states(connection: AsyncConnection, *, narrowed: FleetFilter) -> Sequence[sa.Row[Any]]:
    """Return each pipeline with its latest run and its last success, for the metrics."""
    fleet, parameters = _fleet(narrowed)
    statement = f"""
WITH {fleet}
SELECT f.client_slug, f.pipeline_id, f.pipeline_name, f.platform, f.environment, latest.status, latest.run_at,
       success.ended_at AS last_success_at
FROM fleet f
CROSS JOIN LATERAL (
    SELECT r.status, r.run_at FROM runs r WHERE r.pipeline_id = f.pipeline_id ORDER BY r.run_at DESC, r.id DESC LIMIT 1
) latest
LEFT JOIN LATERAL (
    SELECT {_END.format(r="r")} AS ended_at FROM runs r WHERE r.pipeline_id = f.pipeline_id AND r.status = 'success'
    ORDER BY r.run_at DESC, r.id DESC LIMIT 1
) success ON true
ORDER BY f.client_slug, f.pipeline_name, f.pipeline_id"""
    return (await connection.execute(sa.text(statement), parameters)).all()


def _status_counts(run: str) -> str:
    words = ("queued", "running", "success", "failed", "canceled", "skipped")
    return ", ".join(f"count(*) FILTER (WHERE {run}.status = '{word}') AS {word}" for word in words)


async def _rows(
    connection: AsyncConnection,
    statement: str,
    parameters: dict[str, Any],
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> Sequence[sa.Row[Any]]:
    if after is not None:
        parameters = parameters | {"after_at": after[0], "after_id": after[1]}
    return (await connection.execute(sa.text(statement), parameters | {"limit": limit})).all()


# Grain: a pipeline whose expected run has come. Locked, so that two workers do not do the same twice.
_CLAIM_MET = sa.text("""
SELECT p.id, p.schedule, latest.run_at
FROM pipelines p
CROSS JOIN LATERAL (
    SELECT r.run_at FROM runs r
    WHERE r.pipeline_id = p.id AND r.run_at >= p.next_due_at AND r.status <> 'queued'
    ORDER BY r.run_at DESC, r.id DESC LIMIT 1
) latest
WHERE p.next_due_at IS NOT NULL AND p.is_active AND p.next_due_at <= :now
ORDER BY p.id LIMIT :limit
FOR NO KEY UPDATE OF p SKIP LOCKED""")


async def claim_met(connection: AsyncConnection, *, now: datetime, limit: int) -> Sequence[sa.Row[Any]]:
    """Claim pipelines whose next slot some run has met. Indexes: ix_pipelines_next_due_at, ix_runs_pipeline_id_run_at."""
    return (await connection.execute(_CLAIM_MET, {"now": now, "limit": limit})).all()


async def set_next_due(connection: AsyncConnection, *, due: Mapping[UUID, datetime]) -> None:
    """Note when the next run of each pipeline is expected."""
    statement = sa.text("UPDATE pipelines SET next_due_at = :due WHERE id = :id")
    await connection.execute(statement, [{"id": pipeline_id, "due": at} for pipeline_id, at in due.items()])

"""The statements that read a pipeline's past: the end of every attempt counts, superseded ones among them.

The current attempt's end is the run's own; the ends of superseded attempts stand in the history alone. Ends are
ordered by ``(at, run_id, attempt)``, where ``at`` is the run's time as that attempt had it. How a pipeline stood at a
time is told by the latest of the ends that had come by then, skipped ones left out: a re-run under way changes nothing
until it ends. ``tests/health/test_reference.py`` holds these statements to the same rules in Python.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headway.health.fleet import DECIDED, END, HEAD, IN_TIME, TERMINAL, FleetFilter, fetch, fleet, place

# Superseded ends of one pipeline f. They are found through their runs: an attempt that ended after a time was
# superseded after it, so its run was updated after it (a source's clock may be a day ahead).
# Indexes: ix_runs_reattempted, pk_run_events.
_SUPERSEDED = f"""(
    SELECT r.id AS run_id, e.attempt, e.status, coalesce(e.started_at, e.ended_at) AS at, e.ended_at
    FROM runs r
    CROSS JOIN LATERAL (
        SELECT e.attempt, min(e.started_at) AS started_at,
               coalesce(max(e.finished_at), max(e.last_occurred_at) FILTER (WHERE e.status IN {TERMINAL}),
                        min(e.started_at), min(e.recorded_at)) AS ended_at,
               (array_agg(e.status ORDER BY e.last_occurred_at DESC NULLS LAST,
                          array_position(ARRAY['failed', 'canceled', 'skipped', 'success'], e.status))
                FILTER (WHERE e.status IN {TERMINAL}))[1] AS status
        FROM run_events e
        WHERE e.pipeline_id = r.pipeline_id AND e.external_run_id = r.external_run_id AND e.attempt < r.attempt
        GROUP BY e.attempt
    ) e
    WHERE r.pipeline_id = f.pipeline_id AND r.attempt > 1 AND r.updated_at >= CAST(:since AS timestamptz) - interval '1 day'
      AND e.status IS NOT NULL
)"""


async def list_flaky(
    connection: AsyncConnection,
    *,
    narrowed: FleetFilter,
    since: datetime,
    after: tuple[int, int, UUID] | None,
    limit: int,
) -> Sequence[sa.Row[Any]]:
    """Return a page of pipelines whose ends changed between success and failure, most flips, then failures, then by id.

    Indexes: ix_runs_pipeline_id_run_at, ix_runs_reattempted, pk_run_events.
    """
    cte, parameters = fleet(narrowed)
    page = "AND (-n.flips, -n.failures, n.pipeline_id) > (:flips, :failures, :after_id)" if after else ""
    if after:
        parameters |= {"flips": after[0], "failures": after[1], "after_id": after[2]}
    statement = f"""
WITH {cte}, ends AS (
    SELECT f.pipeline_id, r.run_at AS at, r.id AS run_id, r.attempt, r.status
    FROM fleet f JOIN runs r ON r.pipeline_id = f.pipeline_id AND r.run_at >= :since AND r.status IN {DECIDED}
    UNION ALL
    SELECT f.pipeline_id, s.at, s.run_id, s.attempt, s.status
    FROM fleet f CROSS JOIN LATERAL {_SUPERSEDED} s WHERE s.at >= :since AND s.status IN {DECIDED}
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
SELECT {HEAD}, n.total_runs, n.failures, n.failures::float8 / n.total_runs AS failure_rate, n.flips
FROM counted n JOIN fleet f ON f.pipeline_id = n.pipeline_id
WHERE n.flips > 0 {page}
ORDER BY n.flips DESC, n.failures DESC, n.pipeline_id LIMIT :limit"""
    return await fetch(connection, statement, parameters | {"since": since, "limit": limit})


def _end(statuses: str, where: str = "true", *, first: bool = False) -> str:
    """Return the look-up of one pipeline's last end (or first), of some statuses and under some condition.

    The condition may name ``{at}``, ``{run_id}``, ``{attempt}`` and ``{ended_at}``. Index: ix_runs_pipeline_id_run_at
    or ix_runs_pipeline_id_rare, with those of ``_SUPERSEDED``.
    """
    direction = "" if first else " DESC"
    own = where.format(at="r.run_at", run_id="r.id", attempt="r.attempt", ended_at=END)
    past = where.format(at="s.at", run_id="s.run_id", attempt="s.attempt", ended_at="s.ended_at")
    return f"""(
    (SELECT r.run_at AS at, r.id AS run_id, r.attempt, r.status, {END} AS ended_at FROM runs r
     WHERE r.pipeline_id = f.pipeline_id AND r.status {statuses} AND {own}
     ORDER BY r.run_at{direction}, r.id{direction} LIMIT 1)
    UNION ALL
    SELECT s.at, s.run_id, s.attempt, s.status, s.ended_at FROM {_SUPERSEDED} s WHERE s.status {statuses} AND {past}
    ORDER BY at{direction}, run_id{direction}, attempt{direction} LIMIT 1
)"""


_CAME_BY_THEN = "{at} <= :since AND {ended_at} <= :since"


def _turn(change: str, to: str, after: str) -> str:
    """Return the look-up of the end that made a change: the first to some statuses after the last of others."""
    later = "({at}, {run_id}, {attempt}) > (last.at, last.run_id, last.attempt)"
    where = f"f.change = '{change}' AND (last.at IS NULL OR {later})"
    last = _end(after, f"f.change = '{change}'")
    return f"""SELECT turn.run_id, turn.ended_at
    FROM (SELECT) one LEFT JOIN LATERAL {last} last ON true CROSS JOIN LATERAL {_end(to, where, first=True)} turn"""


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

    Only pipelines whose latest end came since, that have none that decides, or that became late since are looked at
    more closely. Indexes: ix_runs_pipeline_id_run_at, ix_runs_pipeline_id_rare, ix_runs_reattempted, pk_run_events.
    """
    cte, parameters = fleet(narrowed)
    page = "WHERE (changed_at, pipeline_id) < (:after_at, :after_id)" if after else ""
    statement = f"""
WITH {cte}, moved AS (
    SELECT f.*, latest.status AS is_now, met.is_in_time IS NULL AS is_late
    FROM fleet f
    LEFT JOIN LATERAL {_end("IN " + DECIDED)} latest ON true
    LEFT JOIN LATERAL {IN_TIME} met ON true
    WHERE latest.ended_at > :since OR latest.run_id IS NULL OR (met.is_in_time IS NULL AND f.deadline > :since)
), compared AS (
    SELECT f.*, past.status AS was, past.run_id IS NOT NULL OR skipped_past.run_id IS NOT NULL AS was_known,
           f.is_now IS NOT NULL OR skipped.run_id IS NOT NULL AS is_known
    FROM moved f
    LEFT JOIN LATERAL {_end("IN " + DECIDED, _CAME_BY_THEN)} past ON true
    LEFT JOIN LATERAL {_end("= 'skipped'", "past.run_id IS NULL AND " + _CAME_BY_THEN)} skipped_past ON true
    LEFT JOIN LATERAL {_end("= 'skipped'", "f.is_now IS NULL")} skipped ON true
), changed AS (
    SELECT f.*, CASE
        WHEN is_now = 'failed' THEN CASE WHEN was IS DISTINCT FROM 'failed' THEN 'newly_failing' END
        WHEN is_late AND deadline > :since THEN 'silent'
        WHEN was = 'failed' THEN 'recovered'
        WHEN is_known AND NOT was_known THEN 'new'
    END AS change
    FROM compared f
), dated AS (
    SELECT {HEAD}, f.change, coalesce(turn.ended_at, f.deadline) AS changed_at, turn.run_id
    FROM changed f
    LEFT JOIN LATERAL (
        {_turn("newly_failing", "= 'failed'", "IN ('success', 'canceled')")}
        UNION ALL
        {_turn("recovered", "IN ('success', 'canceled')", "= 'failed'")}
        UNION ALL
        SELECT turn.run_id, turn.ended_at FROM {_end("IN " + TERMINAL, "f.change = 'new'", first=True)} turn
    ) turn ON true
    WHERE f.change IS NOT NULL
)
SELECT * FROM dated {page} ORDER BY changed_at DESC, pipeline_id DESC LIMIT :limit"""
    return await fetch(connection, statement, parameters | place(after) | {"since": since, "now": now, "limit": limit})

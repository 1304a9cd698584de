"""What the statements of the health reads share: the fleet that is asked about, and how one pipeline of it is looked up.

Every statement starts from ``fleet``, the active pipelines of active clients that the caller asked for, and looks each
one's runs up by index. The look-ups are lateral and limited: that keeps the planner from joining all of ``runs`` where
it thinks little of an index (``tests/health/test_plans.py``).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

MAX_STREAK = 1000

# A run's end is known by finished_at; some sources tell only when they saw it.
END = "coalesce(r.finished_at, r.observed_at, r.run_at)"
# Ends that tell how a pipeline fares: a skipped run tells nothing, and stands in no streak.
DECIDED = "('success', 'failed', 'canceled')"
TERMINAL = "('success', 'failed', 'canceled', 'skipped')"

HEAD = "f.pipeline_id, f.pipeline_name, f.client_id, f.client_slug, f.platform, f.environment"

# A run meets a slot of a cron schedule from the slot's time on; of an interval, any run after the one that began it.
MET_AFTER = """{p}.next_due_at - CASE WHEN {p}.schedule ? 'every_seconds'
               THEN make_interval(secs => ({p}.schedule->>'every_seconds')::int) ELSE interval '1 microsecond' END"""

# Look-ups of one pipeline f. Index of each: ix_runs_pipeline_id_run_at, walked back from the latest run.
LATEST_DECIDED = f"""(
    SELECT r.id, r.status, r.run_at, r.error_message FROM runs r
    WHERE r.pipeline_id = f.pipeline_id AND r.status IN {DECIDED}
    ORDER BY r.run_at DESC, r.id DESC LIMIT 1
)"""
LATEST_GOOD = """(
    SELECT r.id, r.run_at FROM runs r
    WHERE r.pipeline_id = f.pipeline_id AND r.status IN ('success', 'canceled')
    ORDER BY r.run_at DESC, r.id DESC LIMIT 1
)"""
LATEST_SUCCESS = f"""(
    SELECT {END} AS ended_at FROM runs r
    WHERE r.pipeline_id = f.pipeline_id AND r.status = 'success'
    ORDER BY r.run_at DESC, r.id DESC LIMIT 1
)"""
# Failed runs after the latest good one, "good". Index: ix_runs_pipeline_id_rare.
STREAK = """runs r WHERE r.pipeline_id = f.pipeline_id AND r.status = 'failed'
    AND (good.run_at IS NULL OR (r.run_at, r.id) > (good.run_at, good.id))"""
# A row where the expected run has started, or its grace is not over yet: no row is late.
IN_TIME = """(
    SELECT true AS is_in_time WHERE f.deadline IS NULL OR f.deadline >= :now
    UNION ALL
    (SELECT true FROM runs r
     WHERE f.deadline < :now AND r.pipeline_id = f.pipeline_id AND r.run_at > f.met_after AND r.status <> 'queued'
     ORDER BY r.run_at DESC, r.id DESC LIMIT 1)
)"""


class FleetFilter(NamedTuple):
    """Which pipelines a health read is about; None is no matter."""

    client_id: UUID | None = None
    platform: str | None = None
    environment: str | None = None


def fleet(narrowed: FleetFilter) -> tuple[str, dict[str, Any]]:
    """Return the CTE ``fleet``, a row a pipeline, and its parameters. The inventory is small: it is filtered."""
    given = {name: value for name, value in narrowed._asdict().items() if value is not None}
    where = "".join(f" AND p.{name} = :{name}" for name in given)
    return (
        f"""fleet AS (
    SELECT p.id AS pipeline_id, p.name AS pipeline_name, p.client_id, c.slug AS client_slug, p.platform, p.environment,
           p.next_due_at, p.next_due_at + make_interval(secs => (p.schedule->>'grace_seconds')::int) AS deadline,
           {MET_AFTER.format(p="p")} AS met_after
    FROM pipelines p JOIN clients c ON c.id = p.client_id
    WHERE p.is_active AND c.is_active{where}
)""",
        given,
    )


async def fetch(connection: AsyncConnection, statement: str, parameters: dict[str, Any]) -> Sequence[sa.Row[Any]]:
    """Return the rows of a statement."""
    return (await connection.execute(sa.text(statement), parameters)).all()


def place(after: tuple[datetime, UUID] | None) -> dict[str, Any]:
    """Return the parameters of a page that begins after a time and a pipeline."""
    return {} if after is None else {"after_at": after[0], "after_id": after[1]}

"""The worker's step that keeps ``pipelines.next_due_at``: once a run has met a slot, the next one is expected.

A slot that nothing met stays, and makes its pipeline late until a run comes.
"""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from headway.health import queries
from headway.pipelines import schedule as rules

CHUNK = 500
UNREADABLE_PAUSE = timedelta(hours=1)

log = structlog.get_logger()


async def advance_due(connection: AsyncConnection, *, now: datetime) -> bool:
    """Move some pipelines to their next slot; True where there may be more."""
    rows = await queries.claim_met(connection, now=now, limit=CHUNK)
    if rows:
        await queries.set_next_due(connection, due={row.id: _next(row, now) for row in rows})
    return len(rows) == CHUNK


def _next(row: sa.Row[Any], now: datetime) -> datetime:
    """Return the next slot of a pipeline; one whose schedule cannot be read any more must not hold up the others."""
    try:
        return rules.next_due(row.schedule, min(row.run_at, now))
    except rules.ScheduleError as error:  # such as a time zone that a newer tzdata does not have
        log.warning("schedule_unreadable", pipeline_id=str(row.id), reason=str(error))
        return now + UNREADABLE_PAUSE

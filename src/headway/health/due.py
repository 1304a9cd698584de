"""The worker's step that keeps ``pipelines.next_due_at``: once a run has met a slot, the next one is expected.

A slot that nothing met stays, and makes its pipeline late until a run comes.
"""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from headway.health import queries
from headway.pipelines import schedule as rules

CHUNK = 500


async def advance_due(connection: AsyncConnection, *, now: datetime) -> bool:
    """Move some pipelines to their next slot; True where there may be more."""
    rows = await queries.claim_met(connection, now=now, limit=CHUNK)
    if rows:
        due = {row.id: rules.next_due(row.schedule, min(row.run_at, now)) for row in rows}
        await queries.set_next_due(connection, due=due)
    return len(rows) == CHUNK

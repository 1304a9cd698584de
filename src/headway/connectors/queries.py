"""Every statement about sources.

A source is read under a claim: a random id with an end, renewed while the reading goes on and checked by every
statement that saves what was read, in the same transaction. So a reader that was taken for dead saves nothing more.
The table has a row a configured source, so all of these are look-ups by its primary key or reads of a small table.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from headway.clients.models import Client
from headway.connectors.models import SourceState
from headway.pipelines.models import Pipeline
from headway.runs.models import run_events, runs
from headway.runs.observation import Status

_sources = cast("sa.Table", SourceState.__table__)
# What is forgotten where a source of this name is now another one.
_PROGRESS = (
    "watermark",
    "history_since",
    "backfill_since",
    "backfill_from",
    "backfill_until",
    "backfill_position",
    "swept_at",
    "reread_after",
)
COUNTED = ("runs_read", "runs_imported", "runs_updated", "runs_outdated", "runs_gone", "runs_odd", "unknown_words")


async def register_sources(connection: AsyncConnection, *, rows: Sequence[Mapping[str, Any]], now: datetime) -> None:
    """Make or update the rows of configured sources, in order of their names; one that moved begins anew."""
    if not rows:
        return
    made = [{**row, "next_try_at": now, "created_at": now, "updated_at": now} for row in rows]
    statement = insert(_sources).values(sorted(made, key=lambda row: row["name"]))
    new = statement.excluded
    is_same = sa.and_(
        _sources.c.url == new.url, _sources.c.platform == new.platform, _sources.c.client_slug == new.client_slug
    )
    is_unchanged = sa.and_(
        is_same,
        _sources.c.environment == new.environment,
        _sources.c.interval_seconds == new.interval_seconds,
        _sources.c.is_active,
    )
    kept = {name: sa.case((is_same, _sources.c[name])) for name in _PROGRESS}
    statement = statement.on_conflict_do_update(
        index_elements=["name"],
        set_={
            **{name: new[name] for name in ("platform", "client_slug", "url", "environment", "interval_seconds")},
            **kept,
            "is_active": True,
            # whoever mends the configuration does not want to wait for the end of a long pause
            "next_try_at": sa.func.least(_sources.c.next_try_at, new.next_try_at),
            "updated_at": sa.case((is_unchanged, _sources.c.updated_at), else_=new.updated_at),
        },
    )
    await connection.execute(statement)


async def retire_others(connection: AsyncConnection, *, names: Sequence[str], now: datetime) -> None:
    """Mark the sources that are configured no more."""
    await connection.execute(
        sa.update(_sources)
        .where(_sources.c.name.not_in(list(names)), _sources.c.is_active)
        .values(is_active=False, updated_at=now)
    )


async def claim_next(
    connection: AsyncConnection,
    *,
    names: Sequence[str],
    claim: UUID,
    now: datetime,
    until: datetime,
    only_due: bool,
    only_healthy: bool,
) -> sa.Row[Any] | None:
    """Claim the source that has waited longest of these, and return its row; None where none is free (due, healthy)."""
    free = sa.or_(_sources.c.claimed_until.is_(None), _sources.c.claimed_until < now)
    wanted = sa.select(_sources.c.name).where(_sources.c.name.in_(list(names)), free)
    if only_due:
        wanted = wanted.where(_sources.c.next_try_at <= now)
    if only_healthy:
        wanted = wanted.where(_sources.c.failures == 0)
    first = wanted.order_by(_sources.c.next_try_at, _sources.c.name).limit(1).with_for_update(skip_locked=True)
    statement = (
        sa.update(_sources)
        .where(_sources.c.name == first.scalar_subquery())
        .values(claim=claim, claimed_until=until, last_started_at=now, updated_at=now)
        .returning(_sources)
    )
    found: sa.Row[Any] | None = (await connection.execute(statement)).one_or_none()
    return found


async def save(
    connection: AsyncConnection,
    *,
    name: str,
    held_by: UUID,
    now: datetime,
    counts: Mapping[str, int] | None = None,
    **values: Any,
) -> bool:
    """Save how far a claimed source is read, with what was counted; False where the claim is lost."""
    statement = (
        sa.update(_sources)
        .where(_sources.c.name == name, _sources.c.claim == held_by)
        .values(**values, **{key: _sources.c[key] + n for key, n in (counts or {}).items() if n}, updated_at=now)
    )
    return (await connection.execute(statement)).rowcount == 1


async def list_held(
    connection: AsyncConnection, *, source: str, client_slug: str, after: UUID | None, limit: int
) -> Sequence[sa.Row[Any]]:
    """Return the unfinished runs that a source has told of, whoever told of them last.

    Grain: a run. Order: by id, after the given one. Index: ix_runs_rare, which holds the few that are unfinished.
    """
    told = (
        sa.select(sa.literal(1))
        .where(
            run_events.c.pipeline_id == runs.c.pipeline_id,
            run_events.c.external_run_id == runs.c.external_run_id,
            run_events.c.source == source,
        )
        .exists()
    )
    statement = (
        sa.select(runs.c.id, runs.c.external_run_id, runs.c.attempt, Pipeline.id.label("pipeline_id"))
        .add_columns(Pipeline.external_id.label("pipeline_external_id"))
        .join(Pipeline, Pipeline.id == runs.c.pipeline_id)
        .join(Client, Client.id == Pipeline.client_id)
        .where(
            runs.c.status.in_([Status.QUEUED.value, Status.RUNNING.value]),
            runs.c.status != Status.SUCCESS.value,  # for the planner: the index's own condition
            Client.slug == client_slug,
            Pipeline.external_id.is_not(None),
            sa.or_(runs.c.source == source, told),
        )
        .order_by(runs.c.id)
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(runs.c.id > after)
    return (await connection.execute(statement)).all()


async def is_client_active(connection: AsyncConnection, *, slug: str) -> bool:
    """Tell whether a client takes runs: it is active, or not made yet."""
    found = (await connection.execute(sa.select(Client.is_active).where(Client.slug == slug))).scalar_one_or_none()
    return found is not False


async def tag_new(connection: AsyncConnection, *, client_slug: str, tags: Sequence[str], now: datetime) -> None:
    """Give the pipelines of a client that were registered in this transaction (at ``now``) their labels."""
    client = sa.select(Client.id).where(Client.slug == client_slug).scalar_subquery()
    await connection.execute(
        sa.update(Pipeline)
        .where(
            Pipeline.client_id == client,
            Pipeline.created_at == now,
            Pipeline.tags == sa.literal([], Pipeline.tags.type),
        )
        .values(tags=list(tags))
    )


async def list_sources(
    connection: AsyncConnection, *, client_slug: str | None = None, after: str | None = None, limit: int | None = None
) -> Sequence[sa.Row[Any]]:
    """Return sources, of one client where given. Grain: a source. Order: by name, after the given one."""
    statement = sa.select(_sources).order_by(_sources.c.name).limit(limit)
    if client_slug is not None:
        statement = statement.where(_sources.c.client_slug == client_slug)
    if after is not None:
        statement = statement.where(_sources.c.name > after)
    return (await connection.execute(statement)).all()


async def find_source(connection: AsyncConnection, *, name: str) -> sa.Row[Any] | None:
    """Return one source. Index: pk_sources."""
    return (await connection.execute(sa.select(_sources).where(_sources.c.name == name))).one_or_none()

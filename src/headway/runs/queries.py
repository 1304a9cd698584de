"""Every statement that reads runs and their history. Writing is ``runs/sql.py``'s.

Lists go by ``(run_at, id)``, latest first unless asked otherwise.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from headway.clients.models import Client
from headway.pipelines.models import Pipeline
from headway.runs.models import run_events, runs
from headway.runs.observation import Status


class RunRow(NamedTuple):
    """A run as it is stored."""

    id: UUID
    pipeline_id: UUID
    external_run_id: str
    status: str
    status_reason: str | None
    attempt: int
    run_at: datetime
    scheduled_for: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    rows_processed: int | None
    error_message: str | None
    url: str | None
    payload: dict[str, Any] | None
    source: str
    observed_at: datetime | None
    created_at: datetime
    updated_at: datetime


class EventRow(NamedTuple):
    """One status that an attempt was seen in."""

    attempt: int
    status: str
    occurred_at: datetime | None
    last_occurred_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    error_message: str | None
    source: str
    recorded_at: datetime


class RunFilter(NamedTuple):
    """What a list of runs is narrowed to; None is no matter."""

    pipeline_id: UUID | None = None
    client_id: UUID | None = None
    platform: str | None = None
    environment: str | None = None
    statuses: tuple[Status, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    external_run_id: str | None = None


# Up to so many pipelines each is asked for its own page; beyond, the fleet is read in order and filtered.
FEW_PIPELINES = 200

_RUN = tuple(runs.c[name] for name in RunRow._fields)


async def get_by_keys(connection: AsyncConnection, *, keys: Sequence[tuple[UUID, str]]) -> list[RunRow]:
    """Return the runs with these keys. Index: pk_runs."""
    wanted = (
        sa.func.unnest(
            sa.cast([pipeline for pipeline, _ in keys], ARRAY(sa.Uuid)),
            sa.cast([external for _, external in keys], ARRAY(sa.Text)),
        )
        .table_valued("pipeline_id", "external_run_id", name="wanted")
        .render_derived()
    )
    statement = sa.select(*_RUN).join(
        wanted,
        sa.and_(runs.c.pipeline_id == wanted.c.pipeline_id, runs.c.external_run_id == wanted.c.external_run_id),
    )
    return [RunRow._make(row) for row in await connection.execute(statement)]


async def find_run(connection: AsyncConnection, *, run_id: UUID, client_id: UUID | None) -> RunRow | None:
    """Return a run by our id, of one client where given. Index: ix_runs_id."""
    statement = sa.select(*_RUN).where(runs.c.id == run_id)
    if client_id is not None:
        statement = statement.join(Pipeline, Pipeline.id == runs.c.pipeline_id).where(Pipeline.client_id == client_id)
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else RunRow._make(row)


async def find_latest(connection: AsyncConnection, *, pipeline_id: UUID) -> RunRow | None:
    """Return a pipeline's latest run. Index: ix_runs_pipeline_id_run_at."""
    statement = (
        sa.select(*_RUN)
        .where(runs.c.pipeline_id == pipeline_id)
        .order_by(runs.c.run_at.desc(), runs.c.id.desc())
        .limit(1)
    )
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else RunRow._make(row)


async def list_events(connection: AsyncConnection, *, run: RunRow) -> list[EventRow]:
    """Return a run's history by attempt, then phase, then time. Index: pk_run_events."""
    phase = sa.case(
        (run_events.c.status == Status.QUEUED.value, 0), (run_events.c.status == Status.RUNNING.value, 1), else_=2
    )
    statement = (
        sa.select(*(run_events.c[name] for name in EventRow._fields))
        .where(run_events.c.pipeline_id == run.pipeline_id, run_events.c.external_run_id == run.external_run_id)
        .order_by(run_events.c.attempt, phase, run_events.c.last_occurred_at.nulls_first(), run_events.c.status)
    )
    return [EventRow._make(row) for row in await connection.execute(statement)]


async def list_runs(
    connection: AsyncConnection,
    *,
    narrowed: RunFilter,
    descending: bool,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> list[RunRow]:
    """Return a page of runs, at most ``limit``, in the order of ``(run_at, id)``.

    Indexes: of a pipeline or a few ix_runs_pipeline_id_run_at or ix_runs_pipeline_id_rare, of the fleet ix_runs_run_at or, for
    statuses other than success, ix_runs_rare; by external_run_id pk_runs.
    """
    page = _Page(narrowed, descending, after, limit)
    if narrowed.pipeline_id is not None:
        statement = page.of(sa.select(*_RUN).where(runs.c.pipeline_id == narrowed.pipeline_id))
    elif narrowed.external_run_id is not None:
        statement = page.of_each(_pipelines(narrowed).subquery("p"))
    elif narrowed.client_id or narrowed.platform or narrowed.environment:
        ids = (await connection.execute(_pipelines(narrowed).limit(FEW_PIPELINES + 1))).scalars().all()
        if len(ids) <= FEW_PIPELINES:
            few = sa.func.unnest(sa.cast(list(ids), ARRAY(sa.Uuid))).table_valued("id", name="p").render_derived()
            statement = page.of_each(few)
        else:
            statement = page.of_fleet(runs.c.pipeline_id.in_(_pipelines(narrowed)))
    else:
        statement = page.of_fleet(sa.true())
    return [RunRow._make(row) for row in await connection.execute(statement)]


def _pipelines(narrowed: RunFilter) -> sa.Select[UUID]:
    statement = sa.select(Pipeline.id)
    if narrowed.client_id is not None:
        statement = statement.where(Pipeline.client_id == narrowed.client_id)
    if narrowed.platform is not None:
        statement = statement.where(Pipeline.platform == narrowed.platform)
    if narrowed.environment is not None:
        statement = statement.where(Pipeline.environment == narrowed.environment)
    return statement


class _Page:
    """Builds the statement of one page."""

    def __init__(self, narrowed: RunFilter, descending: bool, after: tuple[datetime, UUID] | None, limit: int) -> None:
        self._narrowed, self._descending, self._after, self._limit = narrowed, descending, after, limit

    def of(self, statement: sa.Select[Any]) -> sa.Select[Any]:
        """Narrow, order and limit a selection of runs."""
        n = self._narrowed
        if n.statuses:
            words = [status.value for status in n.statuses]
            # a single literal lets the planner prove the condition of a partial index
            one = runs.c.status == sa.literal_column(f"'{words[0]}'")
            statement = statement.where(one if len(words) == 1 else runs.c.status.in_(words))
        if n.since is not None:
            statement = statement.where(runs.c.run_at >= n.since)
        if n.until is not None:
            statement = statement.where(runs.c.run_at < n.until)
        if n.external_run_id is not None:
            statement = statement.where(runs.c.external_run_id == n.external_run_id)
        if self._after is not None:
            place = sa.tuple_(runs.c.run_at, runs.c.id)
            last = sa.tuple_(*(sa.literal(part) for part in self._after))
            statement = statement.where(place < last if self._descending else place > last)
        return self._ordered(statement, runs.c.run_at, runs.c.id)

    def of_each(self, pipelines: Any) -> sa.Select[Any]:
        """Return the page of several pipelines: the best of each one's own; whole rows are read of the page alone."""
        place = (runs.c.pipeline_id, runs.c.run_at, runs.c.id)
        own = self.of(sa.select(*place).where(runs.c.pipeline_id == pipelines.c.id)).lateral("own")
        best = self._ordered(
            sa.select(own).select_from(pipelines.join(own, sa.true())), own.c.run_at, own.c.id
        ).subquery("best")
        # lateral and limited, for the planner knows little of a page that it has not seen
        whole = sa.select(*_RUN).where(*(column == best.c[column.name] for column in place)).limit(1).lateral("whole")
        return self._ordered(sa.select(whole).select_from(best.join(whole, sa.true())), best.c.run_at, best.c.id)

    def of_fleet(self, condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
        """Return the page of the fleet under a condition: in its order, or the best of each rare status."""
        statuses = self._narrowed.statuses
        if not statuses or Status.SUCCESS in statuses:
            return self.of(sa.select(*_RUN).where(condition))
        parts = []
        for status in statuses:
            alone = _Page(self._narrowed._replace(statuses=(status,)), self._descending, self._after, self._limit)
            rare = sa.select(*_RUN).where(condition, runs.c.status != sa.literal_column("'success'"))
            parts.append(sa.select(alone.of(rare).subquery()))
        own = sa.union_all(*parts).subquery("own")
        return self._ordered(sa.select(own), own.c.run_at, own.c.id)

    def _ordered(self, statement: sa.Select[Any], run_at: Any, run_id: Any) -> sa.Select[Any]:
        order = (run_at.desc(), run_id.desc()) if self._descending else (run_at.asc(), run_id.asc())
        return statement.order_by(*order).limit(self._limit)


async def find_pipeline_client(connection: AsyncConnection, *, pipeline_id: UUID) -> UUID | None:
    """Return the client of a pipeline. Index: pk_pipelines."""
    return (
        await connection.execute(sa.select(Pipeline.client_id).where(Pipeline.id == pipeline_id))
    ).scalar_one_or_none()


async def find_client(connection: AsyncConnection, *, client: str | UUID) -> UUID | None:
    """Return a client's id by id or slug. Indexes: pk_clients, uq_clients_slug."""
    column = Client.id if isinstance(client, UUID) else Client.slug
    return (await connection.execute(sa.select(Client.id).where(column == client))).scalar_one_or_none()

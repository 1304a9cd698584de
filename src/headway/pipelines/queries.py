"""Every statement on pipelines, and those on clients that registration needs."""

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from headway.clients.models import Client
from headway.clients.queries import name_contains
from headway.pipelines.models import Pipeline
from headway.pipelines.reference import PipelineRef

# Grain: a row a reference that is known. Indexes: pk_pipelines, and the two unique ones of a client's pipelines.
# Lists come as one JSON text: cheaper to send than arrays, and one statement whatever their length.
_FIND_REFERENCES = sa.text("""
WITH wanted AS MATERIALIZED (
    SELECT ordinal, r ->> 0 AS client, r ->> 1 AS platform, r ->> 2 AS name, r ->> 3 AS external_id,
           coalesce(r ->> 4, 'prod') AS environment
    FROM jsonb_array_elements(CAST(:named AS jsonb)) WITH ORDINALITY AS w(r, ordinal)
)
SELECT w.ordinal - 1, p.id, p.client_id
FROM wanted w
JOIN clients c ON c.slug = w.client
CROSS JOIN LATERAL (
    SELECT k.id, k.client_id FROM pipelines k
    WHERE w.external_id IS NOT NULL
      AND k.client_id = c.id AND k.platform = w.platform AND k.external_id = w.external_id
    UNION ALL
    SELECT k.id, k.client_id FROM pipelines k
    WHERE w.external_id IS NULL
      AND k.client_id = c.id AND k.environment = w.environment AND k.platform = w.platform AND k.name = w.name
) p
UNION ALL
SELECT -1, p.id, p.client_id
FROM jsonb_array_elements_text(CAST(:ids AS jsonb)) AS w(id)
JOIN pipelines p ON p.id = CAST(w.id AS uuid)
""")


async def find_references(
    connection: AsyncConnection, *, references: Collection[UUID | PipelineRef]
) -> dict[UUID | PipelineRef, tuple[UUID, UUID]]:
    """Return (pipeline, client) of each reference that is known, in one query."""
    named = [r for r in references if isinstance(r, PipelineRef)]
    plain = [str(r) for r in references if isinstance(r, UUID)]
    rows = await connection.execute(_FIND_REFERENCES, {"named": json.dumps(named), "ids": json.dumps(plain)})
    return {(named[n] if n >= 0 else pipeline): (pipeline, client) for n, pipeline, client in rows}


async def find_client_slugs(connection: AsyncConnection, *, slugs: Collection[str]) -> set[str]:
    """Return which of these clients exist. Index: uq_clients_slug."""
    statement = sa.select(Client.slug).where(Client.slug == _any_of(slugs))
    return set((await connection.execute(statement)).scalars())


# A client whose name is another's slug must not stand in the way.
_INSERT_CLIENTS = sa.text("""
INSERT INTO clients (id, slug, name, ping_key, created_at, updated_at)
SELECT n.id, n.slug, free.name, n.ping_key, :now, :now
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS n(id uuid, slug text, ping_key text)
CROSS JOIN LATERAL (
    SELECT choice.name
    FROM unnest(ARRAY[n.slug, n.slug || ' (client)', n.slug || ' (' || n.id || ')']) WITH ORDINALITY
         AS choice(name, place)
    WHERE NOT EXISTS (SELECT 1 FROM clients c WHERE c.name = choice.name)
    ORDER BY choice.place
    LIMIT 1
) free
ORDER BY n.slug
ON CONFLICT DO NOTHING
""")


async def insert_clients(connection: AsyncConnection, *, rows: Sequence[dict[str, str]], now: datetime) -> None:
    """Make clients named by their slugs, in key order, leaving alone those that somebody else made meanwhile."""
    await connection.execute(_INSERT_CLIENTS, {"rows": json.dumps(rows), "now": now})


async def lock_clients(connection: AsyncConnection, *, slugs: Collection[str]) -> dict[str, UUID]:
    """Lock these clients against other registrations, in key order; returns their ids by slug. Index: uq_clients_slug.

    Whoever makes clients in the same transaction makes them first: a lock that waits for somebody's new row, which
    in turn waits for a locked one, would be a deadlock.
    """
    statement = (
        sa.select(Client.slug, Client.id)
        .where(Client.slug == _any_of(slugs))
        .order_by(Client.id)
        .with_for_update(key_share=True)
    )
    rows = (await connection.execute(statement)).all()
    return {slug: client_id for slug, client_id in rows}  # noqa: C416 - rows are no pairs to the type checker


async def find_taken(
    connection: AsyncConnection, *, client_ids: list[UUID], names: list[str], slugs: list[str]
) -> tuple[set[tuple[UUID, str, str, str]], set[tuple[UUID, str]]]:
    """Return which names, as (client, environment, platform, name), and slugs, as (client, slug), are taken."""
    statement = sa.select(
        Pipeline.client_id, Pipeline.environment, Pipeline.platform, Pipeline.name, Pipeline.slug
    ).where(
        Pipeline.client_id == sa.any_(sa.cast(client_ids, ARRAY(sa.Uuid))),
        sa.or_(Pipeline.name == _any_of(names), Pipeline.slug == _any_of(slugs)),
    )
    rows = (await connection.execute(statement)).all()
    return {(r[0], r[1], r[2], r[3]) for r in rows}, {(r[0], r[4]) for r in rows}


def _any_of(texts: Collection[str]) -> sa.CollectionAggregate[Any]:
    return sa.any_(sa.cast(list(texts), ARRAY(sa.Text)))


_INSERT_PIPELINES = sa.text("""
INSERT INTO pipelines (id, client_id, slug, name, platform, external_id, environment, ping_uuid, created_at, updated_at)
SELECT n.id, n.client_id, n.slug, n.name, n.platform, n.external_id, n.environment, n.ping_uuid, :now, :now
FROM jsonb_to_recordset(CAST(:rows AS jsonb))
     AS n(id uuid, client_id uuid, slug text, name text, platform text, external_id text, environment text,
          ping_uuid uuid)
""")


async def insert_pipelines(
    connection: AsyncConnection, *, rows: Sequence[dict[str, str | None]], now: datetime
) -> None:
    """Store new pipelines."""
    await connection.execute(_INSERT_PIPELINES, {"rows": json.dumps(rows), "now": now})


class PipelineFilter(NamedTuple):
    """What a list of pipelines is narrowed to; None is no matter."""

    client_id: UUID | None = None
    platform: str | None = None
    pipeline_type: str | None = None
    environment: str | None = None
    tag: str | None = None
    external_id: str | None = None
    slug: str | None = None
    text: str | None = None
    is_active: bool = True


async def find_pipeline(
    session: AsyncSession, *, pipeline_id: UUID, client_id: UUID | None, lock: bool = False
) -> Pipeline | None:
    """Return a pipeline, of one client where given, locked for a change if asked. Index: pk_pipelines."""
    statement = sa.select(Pipeline).where(Pipeline.id == pipeline_id)
    if client_id is not None:
        statement = statement.where(Pipeline.client_id == client_id)
    return (await session.execute(_locked(statement, lock))).scalar_one_or_none()


async def find_by_slug(session: AsyncSession, *, client_id: UUID, slug: str) -> Pipeline | None:
    """Return a client's pipeline by slug, locked for a change. Index: uq_pipelines_client_id_slug."""
    statement = sa.select(Pipeline).where(Pipeline.client_id == client_id, Pipeline.slug == slug)
    return (await session.execute(_locked(statement, lock=True))).scalar_one_or_none()


async def find_free_slug(session: AsyncSession, *, client_id: UUID, choices: Sequence[str]) -> str | None:
    """Return the first of these slugs that no pipeline of a client has. Index: uq_pipelines_client_id_slug."""
    statement = sa.select(Pipeline.slug).where(Pipeline.client_id == client_id, Pipeline.slug.in_(choices))
    taken = set((await session.execute(statement)).scalars())
    return next((slug for slug in choices if slug not in taken), None)


def _locked(statement: sa.Select[Pipeline], lock: bool) -> sa.Select[Pipeline]:
    # NO KEY UPDATE: reports of its runs go on meanwhile
    return statement.with_for_update(key_share=True) if lock else statement


async def list_pipelines(
    session: AsyncSession, *, narrowed: PipelineFilter, after: tuple[str, UUID] | None, limit: int
) -> Sequence[Pipeline]:
    """Return a page of pipelines by name in code-point order, then id. The table is small: it is sorted."""
    n = narrowed
    equal = {
        Pipeline.client_id: n.client_id,
        Pipeline.platform: n.platform,
        Pipeline.pipeline_type: n.pipeline_type,
        Pipeline.environment: n.environment,
        Pipeline.external_id: n.external_id,
        Pipeline.slug: n.slug,
        Pipeline.is_active: n.is_active,
    }
    statement = sa.select(Pipeline).order_by(Pipeline.name, Pipeline.id).limit(limit)
    statement = statement.where(*(column == value for column, value in equal.items() if value is not None))
    if n.is_active and n.client_id is None:
        statement = statement.join(Client, Client.id == Pipeline.client_id).where(Client.is_active)
    if n.tag is not None:
        statement = statement.where(Pipeline.tags.contains([n.tag]))
    if n.text is not None:
        statement = statement.where(name_contains(Pipeline.name, n.text))
    if after is not None:
        statement = statement.where(sa.tuple_(Pipeline.name, Pipeline.id) > sa.tuple_(*(sa.literal(p) for p in after)))
    return (await session.execute(statement)).scalars().all()

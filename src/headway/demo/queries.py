"""The statements that make the demo's inventory. What is there already stays as it is."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from headway.alerts.models import AlertRule
from headway.clients.models import Client
from headway.pipelines.models import Pipeline


async def insert_clients(connection: AsyncConnection, *, rows: Sequence[dict[str, Any]]) -> set[str]:
    """Make the clients that are not there; returns their slugs."""
    statement = insert(Client).values(list(rows)).on_conflict_do_nothing().returning(Client.slug)
    return set((await connection.execute(statement)).scalars())


async def list_clients(connection: AsyncConnection, *, slugs: Collection[str]) -> dict[str, tuple[UUID, datetime]]:
    """Return id and made time of clients by slug. Index: uq_clients_slug."""
    statement = sa.select(Client.slug, Client.id, Client.created_at).where(Client.slug.in_(slugs))
    return {slug: (client_id, created_at) for slug, client_id, created_at in await connection.execute(statement)}


async def insert_pipelines(connection: AsyncConnection, *, rows: Sequence[dict[str, Any]]) -> None:
    """Make the pipelines that are not there."""
    if rows:
        await connection.execute(insert(Pipeline).values(list(rows)).on_conflict_do_nothing())


async def list_pipelines(connection: AsyncConnection, *, client_ids: Collection[UUID]) -> dict[tuple[UUID, str], UUID]:
    """Return the ids of these clients' pipelines by client and slug. Index: uq_pipelines_client_id_slug."""
    statement = sa.select(Pipeline.client_id, Pipeline.slug, Pipeline.id).where(Pipeline.client_id.in_(client_ids))
    return {(client_id, slug): pipeline_id for client_id, slug, pipeline_id in await connection.execute(statement)}


async def insert_rules(connection: AsyncConnection, *, rows: Sequence[dict[str, Any]]) -> None:
    """Make the alert rules that are not there."""
    if rows:
        await connection.execute(insert(AlertRule).values(list(rows)).on_conflict_do_nothing())

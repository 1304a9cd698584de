"""Statements on API keys. The table is small; each is served by ``uq_api_keys_key_hash`` or ``uq_api_keys_name``."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from headway.access.models import ApiKey

# The table of clients, as far as keys go: access stands below clients and does not import them.
_CLIENTS = sa.table("clients", sa.column("id", sa.Uuid), sa.column("slug", sa.Text), sa.column("is_active", sa.Boolean))

LAST_USE_GRAIN = timedelta(minutes=1)


async def find_key(connection: AsyncConnection, *, key_hash: bytes) -> sa.Row[Any] | None:
    """Return a key by its hash, with its client where it is bound to one."""
    statement = (
        sa.select(ApiKey, _CLIENTS.c.slug.label("client_slug"), _CLIENTS.c.is_active.label("client_is_active"))
        .outerjoin(_CLIENTS, _CLIENTS.c.id == ApiKey.client_id)
        .where(ApiKey.key_hash == key_hash)
    )
    return (await connection.execute(statement)).one_or_none()


async def record_use(connection: AsyncConnection, *, key_id: UUID, now: datetime) -> None:
    """Note that a key was used, at most once a minute; a row that is locked is being noted by somebody else."""
    due = sa.or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < now - LAST_USE_GRAIN)
    free = sa.select(ApiKey.id).where(ApiKey.id == key_id, due).with_for_update(skip_locked=True)
    await connection.execute(sa.update(ApiKey).where(ApiKey.id.in_(free)).values(last_used_at=now))


async def insert_key(connection: AsyncConnection, *, values: dict[str, Any]) -> None:
    """Store a new key."""
    await connection.execute(sa.insert(ApiKey).values(**values))


async def insert_key_if_new(connection: AsyncConnection, *, values: dict[str, Any]) -> None:
    """Store a key unless it, or an active one of its name, is there already."""
    await connection.execute(insert(ApiKey).values(**values).on_conflict_do_nothing())


async def list_keys(connection: AsyncConnection) -> Sequence[sa.Row[Any]]:
    """Return all keys by name, revoked ones last."""
    statement = (
        sa.select(ApiKey, _CLIENTS.c.slug.label("client_slug"))
        .outerjoin(_CLIENTS, _CLIENTS.c.id == ApiKey.client_id)
        .order_by(ApiKey.revoked_at.is_not(None), ApiKey.name, ApiKey.created_at)
    )
    return (await connection.execute(statement)).all()


async def revoke_key(connection: AsyncConnection, *, name: str, now: datetime) -> bool:
    """Revoke the active key of a name; False where there is none."""
    statement = sa.update(ApiKey).where(ApiKey.name == name, ApiKey.revoked_at.is_(None)).values(revoked_at=now)
    return (await connection.execute(statement)).rowcount == 1


async def find_client(connection: AsyncConnection, *, slug: str) -> UUID | None:
    """Return the id of a client by its slug."""
    return (await connection.execute(sa.select(_CLIENTS.c.id).where(_CLIENTS.c.slug == slug))).scalar_one_or_none()

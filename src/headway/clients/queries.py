"""Every statement on clients."""

from collections.abc import Sequence
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from headway.clients.models import Client


async def find_client(session: AsyncSession, *, client: UUID | str, lock: bool = False) -> Client | None:
    """Return a client by id or slug, locked for a change if asked. Indexes: pk_clients, uq_clients_slug."""
    column = Client.id if isinstance(client, UUID) else Client.slug
    statement = sa.select(Client).where(column == client)
    if lock:
        statement = statement.with_for_update(key_share=True)
    return (await session.execute(statement)).scalar_one_or_none()


def name_contains(name: sa.ColumnElement[str] | InstrumentedAttribute[str], text: str) -> sa.ColumnElement[bool]:
    """Return the condition that a name contains a text, whatever the case of letters of any alphabet."""
    # a name's own collation, by code point, knows the case of ASCII alone
    return sa.collate(name, "default").icontains(text, autoescape=True)


async def find_slugs(session: AsyncSession, *, slugs: Sequence[str]) -> set[str]:
    """Return which of these slugs are taken. Index: uq_clients_slug."""
    return set((await session.execute(sa.select(Client.slug).where(Client.slug.in_(slugs)))).scalars())


async def list_clients(
    session: AsyncSession,
    *,
    client_id: UUID | None,
    is_active: bool,
    tag: str | None,
    text: str | None,
    after: tuple[str, UUID] | None,
    limit: int,
) -> Sequence[Client]:
    """Return a page of clients by name in code-point order, then id. Index: uq_clients_name."""
    statement = sa.select(Client).where(Client.is_active.is_(is_active)).order_by(Client.name, Client.id).limit(limit)
    if client_id is not None:
        statement = statement.where(Client.id == client_id)
    if tag is not None:
        statement = statement.where(Client.tags.contains([tag]))
    if text is not None:
        statement = statement.where(name_contains(Client.name, text))
    if after is not None:
        statement = statement.where(sa.tuple_(Client.name, Client.id) > sa.tuple_(*(sa.literal(p) for p in after)))
    return (await session.execute(statement)).scalars().all()

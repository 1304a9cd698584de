"""Makes, changes and deactivates clients, and finds the one that a path or filter names."""

import re
import secrets
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from headway.access.principal import Principal
from headway.clients import queries
from headway.clients.models import Client
from headway.clients.schemas import ClientChanges, NewClient
from headway.core import clock, ids
from headway.core.errors import NotFoundError
from headway.core.text import slugify
from headway.core.validation import UUID_PATTERN

_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")


class UnknownClientError(NotFoundError):
    """Client not found."""

    code = "client_not_found"

    def __init__(self) -> None:
        super().__init__("there is no such client, by id or slug")


def new_ping_key() -> str:
    """Return a new credential for a client's ping URLs."""
    return secrets.token_urlsafe(16)


def reference(client: str) -> UUID | str:
    """Return an id where a text is one, else the slug it must be."""
    return UUID(client) if UUID_PATTERN.fullmatch(client) else client


async def get_client(session: AsyncSession, *, client: str, principal: Principal, lock: bool = False) -> Client:
    """Return a client by id or slug.

    Raises:
        UnknownClientError: there is none that this caller may see.
    """
    named = reference(client)
    if isinstance(named, str) and not _SLUG.fullmatch(named):
        raise UnknownClientError
    found = await queries.find_client(session, client=named, lock=lock)
    if found is None or not principal.sees(found.id):
        raise UnknownClientError
    return found


async def create_client(session: AsyncSession, *, new: NewClient) -> Client:
    """Store a new client.

    Raises:
        ConflictError: its name or slug is taken.
    """
    now = clock.now()
    client = Client(
        id=ids.new_id(),
        slug=new.slug or await _free_slug(session, new.name),
        name=new.name,
        tags=new.tags or [],
        is_active=True,
        ping_key=new_ping_key(),
        created_at=now,
        updated_at=now,
    )
    session.add(client)
    await session.flush()
    return client


async def _free_slug(session: AsyncSession, name: str) -> str:
    """Return a slug for a name, with a number where it is taken; one that looks like an id is prefixed."""
    base = slugify(name, "client")
    base = f"client-{base}" if UUID_PATTERN.fullmatch(base) else base
    choices = [base, *(f"{base[:96]}-{number}" for number in range(2, 100))]
    taken = await queries.find_slugs(session, slugs=choices)
    return next((slug for slug in choices if slug not in taken), base)


async def change_client(session: AsyncSession, *, client: Client, changes: ClientChanges) -> Client:
    """Apply changes; null is the same as absent, as no column of a client can be empty."""
    return await _set(session, client, changes.model_dump(exclude_none=True))


async def deactivate_client(session: AsyncSession, *, client: Client) -> Client:
    """Take a client out of the standard lists; its history stays, its keys and ping URLs are refused meanwhile."""
    return await _set(session, client, {"is_active": False})


async def rotate_ping_key(session: AsyncSession, *, client: Client) -> Client:
    """Give a client a new ping key; the old one is refused from now on."""
    return await _set(session, client, {"ping_key": new_ping_key()})


async def _set(session: AsyncSession, client: Client, values: dict[str, Any]) -> Client:
    changed = {name: value for name, value in values.items() if getattr(client, name) != value}
    for name, value in changed.items():
        setattr(client, name, value)
    if changed:
        client.updated_at = clock.now()
    await session.flush()
    return client

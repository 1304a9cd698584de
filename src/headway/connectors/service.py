"""Sources as callers see them: a key that is bound to a client sees that client's alone."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headway.access.principal import Principal
from headway.connectors import queries
from headway.core.errors import NotFoundError


class UnknownSourceError(NotFoundError):
    """Unknown source."""

    code = "source_not_found"

    def __init__(self) -> None:
        super().__init__("there is no such source")


async def get_source(connection: AsyncConnection, *, name: str, principal: Principal) -> sa.Row[Any]:
    """Return a source.

    Raises:
        UnknownSourceError: there is none of this name for this caller.
    """
    row = await queries.find_source(connection, name=name)
    if row is None or (principal.client_id is not None and row.client_slug != principal.client_slug):
        raise UnknownSourceError
    return row

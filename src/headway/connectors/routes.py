"""The API of sources: how far each is read, and what is wrong with it. They are configured in a file, not here."""

from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Path

from headway.access.gate import Caller, router
from headway.connectors import queries, service
from headway.connectors.schemas import SourceView
from headway.core import clock, paging
from headway.core.db import Connection
from headway.core.paging import Cursor, Limit, Page

routes = router("sources")


@routes.get("/sources")
async def list_sources(
    connection: Connection, caller: Caller, limit: Limit = paging.DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[SourceView]:
    """List the sources that are or were configured, by name in code-point order."""
    asked = paging.question("sources")
    after = paging.decode(cursor, asked, (str,))
    rows = await queries.list_sources(
        connection,
        client_slug=caller.client_slug,
        after=None if after is None else after[0],
        limit=limit + 1,
    )
    now = clock.now()

    def key(row: sa.Row[Any]) -> tuple[str]:
        return (row.name,)

    return paging.page(rows, limit=limit, asked=asked, key=key, item=lambda row: SourceView.of(row, now=now))


@routes.get("/sources/{name}")
async def get_source(
    name: Annotated[str, Path(description="name of the source in the configuration")],
    connection: Connection,
    caller: Caller,
) -> SourceView:
    """Return one source by its name."""
    row = await service.get_source(connection, name=name, principal=caller)
    return SourceView.of(row, now=clock.now())

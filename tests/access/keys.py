"""Makes API keys for tests, as ``headway keys create`` does."""

from datetime import timedelta

from headway.access import service
from headway.access.principal import Scope
from headway.core import clock
from headway.core.db import Database


async def make_key(
    database: Database,
    *scopes: str,
    name: str | None = None,
    client: str | None = None,
    expires_in: timedelta | None = None,
) -> str:
    async with database.transaction() as connection:
        return await service.create_key(
            connection,
            name=name or f"{'-'.join(scopes)} {client or 'all'}",
            scopes=[Scope(scope) for scope in scopes],
            client=client,
            expires_in=expires_in,
            now=clock.now(),
        )

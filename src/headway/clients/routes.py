"""The API of clients."""

from typing import Annotated
from uuid import UUID

from fastapi import Query, Response

from headway.access.gate import UNBOUND_EXTENSION, Caller, needs, router
from headway.access.principal import Scope
from headway.clients import queries, service
from headway.clients.models import Client
from headway.clients.schemas import ClientChanges, ClientView, NewClient
from headway.core import paging
from headway.core.db import Session
from headway.core.paging import Cursor, Limit, Page
from headway.core.validation import FilterText

routes = router("clients")


@routes.post("/clients", status_code=201, openapi_extra=needs(Scope.ADMIN, **{UNBOUND_EXTENSION: True}))
async def create_client(new: NewClient, session: Session, caller: Caller) -> ClientView:
    """Make a client; only a key that is bound to none may."""
    return ClientView.of(await service.create_client(session, new=new), caller)


@routes.get("/clients")
async def list_clients(
    session: Session,
    caller: Caller,
    is_active: bool = True,
    tag: FilterText = None,
    q: Annotated[FilterText, Query(description="name contains, whatever the case")] = None,
    limit: Limit = paging.DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[ClientView]:
    """List clients by name in code-point order, then id."""
    asked = paging.question("clients", is_active=is_active, tag=tag, q=q)
    after = paging.decode(cursor, asked, (str, UUID))
    rows = await queries.list_clients(
        session,
        client_id=caller.client_id,
        is_active=is_active,
        tag=tag,
        text=q,
        after=None if after is None else (after[0], after[1]),
        limit=limit + 1,
    )

    def key(client: Client) -> tuple[str, UUID]:
        return client.name, client.id

    return paging.page(rows, limit=limit, asked=asked, key=key, item=lambda client: ClientView.of(client, caller))


@routes.get("/clients/{client}")
async def get_client(client: str, session: Session, caller: Caller) -> ClientView:
    """Return a client by id or slug."""
    return ClientView.of(await service.get_client(session, client=client, principal=caller), caller)


@routes.patch("/clients/{client}")
async def change_client(client: str, changes: ClientChanges, session: Session, caller: Caller) -> ClientView:
    """Change a client; what is absent stays."""
    found = await service.get_client(session, client=client, principal=caller, lock=True)
    return ClientView.of(await service.change_client(session, client=found, changes=changes), caller)


@routes.delete("/clients/{client}", status_code=204)
async def deactivate_client(client: str, session: Session, caller: Caller) -> Response:
    """Deactivate a client: history stays, standard lists leave it out, PATCH brings it back."""
    found = await service.get_client(session, client=client, principal=caller, lock=True)
    await service.deactivate_client(session, client=found)
    return Response(status_code=204)


@routes.post("/clients/{client}/ping_key")
async def rotate_ping_key(client: str, session: Session, caller: Caller) -> ClientView:
    """Give a client a new ping key; the old one stops working."""
    found = await service.get_client(session, client=client, principal=caller, lock=True)
    return ClientView.of(await service.rotate_ping_key(session, client=found), caller)

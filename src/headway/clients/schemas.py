"""What the API takes and shows of clients."""

from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, Field

from headway.access.principal import Principal
from headway.clients.models import Client
from headway.core.validation import ClientSlug, UtcTime, Wire

Tag = Annotated[str, Field(min_length=1, max_length=100)]
Tags = Annotated[list[Tag], Field(max_length=50)]
ClientName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]


class NewClient(Wire):
    """A client to make."""

    name: ClientName
    slug: ClientSlug | None = Field(None, description="made from the name where not given")
    tags: Tags | None = None


class ClientChanges(Wire):
    """What to change of a client; what is absent stays as it is."""

    name: ClientName | None = None
    slug: ClientSlug | None = None
    tags: Tags | None = None
    is_active: bool | None = None


class ClientView(BaseModel):
    """A client."""

    id: UUID
    slug: str
    name: str
    is_active: bool
    tags: list[str]
    ping_key: str | None = Field(description="shown to the scopes ingest and admin alone")
    created_at: UtcTime
    updated_at: UtcTime

    @classmethod
    def of(cls, client: Client, principal: Principal) -> Self:
        """Return what a caller may see of a client."""
        return cls(
            id=client.id,
            slug=client.slug,
            name=client.name,
            is_active=client.is_active,
            tags=client.tags,
            ping_key=client.ping_key if principal.sees_ping_credentials else None,
            created_at=client.created_at,
            updated_at=client.updated_at,
        )

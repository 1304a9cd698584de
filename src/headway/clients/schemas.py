"""What the API takes and shows of clients."""

from typing import Annotated, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from headway.access.principal import Principal
from headway.clients.models import Client
from headway.core.validation import UUID_PATTERN, Slug, UtcTime, Wire

Tag = Annotated[str, Field(min_length=1, max_length=100)]
Tags = Annotated[list[Tag], Field(max_length=50)]
ClientName = Annotated[str, Field(min_length=1, max_length=200)]


def _no_id(slug: str) -> str:
    """Refuse a slug that a path would take for an id."""
    if UUID_PATTERN.fullmatch(slug):
        raise PydanticCustomError("invalid_format", "must not look like an id")
    return slug


ClientSlug = Annotated[Slug, AfterValidator(_no_id)]


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

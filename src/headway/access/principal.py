"""Who is calling, and what that lets them see and do.

Pure. Made by ``access/service.py`` from a key; every route has one. A principal bound to a client sees that client
alone: whatever belongs to another is unknown to it, never forbidden.
"""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class Scope(StrEnum):
    """What a key may be used for."""

    READ = "read"
    INGEST = "ingest"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of a request."""

    name: str
    scopes: frozenset[Scope]
    client_id: UUID | None = None
    client_slug: str | None = None

    @property
    def may_make_clients(self) -> bool:
        """Only an unbound admin makes clients (``default`` excepted)."""
        return self.client_id is None and Scope.ADMIN in self.scopes

    @property
    def sees_ping_credentials(self) -> bool:
        """Ping URLs are credentials for reporting runs."""
        return bool(self.scopes & {Scope.INGEST, Scope.ADMIN})

    def sees(self, client_id: UUID) -> bool:
        """Tell whether a client's things exist for this caller."""
        return self.client_id is None or self.client_id == client_id


EVERYONE = Principal("anonymous", frozenset(Scope))

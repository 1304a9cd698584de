"""Makes, revokes and checks API keys.

A key is ``hw_`` and 32 random bytes in base64url; only its SHA-256 is stored (a slow hash adds nothing to 256 random
bits). Each process remembers a key for ``CACHE_SECONDS``, so that a revoked one is refused everywhere within that time.
"""

import hashlib
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from headway.access import queries
from headway.access.principal import Principal, Scope
from headway.core import clock, ids
from headway.core.db import Database
from headway.core.errors import ConflictError, InvalidInputError, NotFoundError, UnauthorizedError

CACHE_SECONDS = 3.0
NAME_LENGTH_MAX = 200
_CACHE_SIZE = 10_000
_KEY = re.compile(r"hw_[A-Za-z0-9_-]{43,200}")
_WAY_OUT = "send Authorization: Bearer hw_…; make a key with: headway keys create NAME --scope read"


def generate_key() -> str:
    """Return a new key."""
    return "hw_" + secrets.token_urlsafe(32)


def hash_key(key: str) -> bytes:
    """Return what is stored of a key."""
    return hashlib.sha256(key.encode()).digest()


async def create_key(
    connection: AsyncConnection,
    *,
    name: str,
    scopes: Iterable[Scope],
    client: str | None = None,
    expires_in: timedelta | None = None,
    now: datetime,
) -> str:
    """Store a new key and return it; it cannot be read again.

    Raises:
        InvalidInputError: it has no name or no scope, or would never work.
        NotFoundError: no such client.
        ConflictError: an active key has this name.
    """
    scopes = set(scopes)
    if not name.strip() or len(name) > NAME_LENGTH_MAX or "\0" in name:
        raise InvalidInputError(f"a key's name has 1 to {NAME_LENGTH_MAX} characters")
    if not scopes:
        raise InvalidInputError("a key has one scope or more: ingest, read, admin")
    if expires_in is not None and expires_in <= timedelta(0):
        raise InvalidInputError("a key works for some time, or for ever")
    client_id = None
    if client is not None:
        client_id = await queries.find_client(connection, slug=client)
        if client_id is None:
            raise NotFoundError("there is no client with this slug", code="unknown_client")
    made = generate_key()
    values = _stored(made, name=name, scopes=scopes, now=now)
    values |= {"client_id": client_id, "expires_at": None if expires_in is None else now + expires_in}
    await queries.insert_key(connection, values=values)
    return made


async def ensure_bootstrap_key(connection: AsyncConnection, *, key: str, now: datetime) -> None:
    """Store the configured first key where it is not known; a revoked one stays revoked.

    Every API process calls this at its start, so several may do it at once.

    Raises:
        ConflictError: another active key has the name that this one would get.
    """
    name = f"bootstrap-{key[3:9]}"
    await queries.insert_key_if_new(connection, values=_stored(key, name=name, scopes=set(Scope), now=now))
    if await queries.find_key(connection, key_hash=hash_key(key)) is None:
        raise ConflictError(f"another key is called {name}; revoke it: headway keys revoke {name}", code="name_taken")


def _stored(key: str, *, name: str, scopes: Collection[Scope], now: datetime) -> dict[str, Any]:
    """Return the row of a new key: of the key itself only its hash, and a beginning that gives nothing away."""
    return {
        "id": ids.new_id(),
        "name": name,
        "prefix": key[:9],
        "key_hash": hash_key(key),
        "scopes": [scope.value for scope in Scope if scope in scopes],
        "created_at": now,
    }


class KeyRing:
    """Tells who is calling, remembering for a few seconds what the database said."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # by hash: (until when, on the monotonic clock; who it is)
        self._known: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()

    async def authenticate(self, authorization: str | None) -> Principal:
        """Return the caller for an ``Authorization`` header.

        Raises:
            UnauthorizedError: no key, or one that is unknown, expired, revoked, or of a deactivated client.
        """
        if authorization is None:
            raise UnauthorizedError(f"an API key is required: {_WAY_OUT}", code="key_missing")
        scheme, _, key = authorization.partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not _KEY.fullmatch(key):
            raise UnauthorizedError(f"this is not an API key of Headway: {_WAY_OUT}", code="key_malformed")
        key_hash = hash_key(key)
        known = self._known.get(key_hash)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        asked = time.monotonic()
        principal, lasting = await self._look_up(key_hash)
        self._known[key_hash] = (asked + lasting, principal)
        self._known.move_to_end(key_hash)
        if len(self._known) > _CACHE_SIZE:
            self._known.popitem(last=False)
        return principal

    async def _look_up(self, key_hash: bytes) -> tuple[Principal, float]:
        """Return whose key it is, and for how many seconds that may be remembered."""
        now = clock.now()
        self._known.pop(key_hash, None)
        async with self._database.transaction() as connection:
            row = await queries.find_key(connection, key_hash=key_hash)
            if row is None:
                raise UnauthorizedError("this API key is not known", code="key_unknown")
            if row.revoked_at is not None:
                raise UnauthorizedError("this API key was revoked", code="key_revoked")
            if row.expires_at is not None and row.expires_at <= now:
                raise UnauthorizedError("this API key has expired", code="key_expired")
            if row.client_is_active is False:
                raise UnauthorizedError("the client of this API key is deactivated", code="client_inactive")
            await queries.record_use(connection, key_id=row.id, now=now)
        left = CACHE_SECONDS if row.expires_at is None else (row.expires_at - now).total_seconds()
        scopes = frozenset(Scope(scope) for scope in row.scopes)
        return Principal(row.name, scopes, row.client_id, row.client_slug), min(CACHE_SECONDS, left)

"""API keys: how they are made and kept, and when they stop working."""

import asyncio
import hashlib
import logging
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import structlog

from headway.access import queries, service
from headway.access.principal import Principal, Scope
from headway.core import clock
from headway.core import logging as logs
from headway.core.db import Database
from headway.core.errors import ConflictError, InvalidInputError, NotFoundError
from headway.main import create_app
from headway.settings import load_settings
from tests.access.keys import make_key
from tests.api import Api, running

Db = psycopg.Connection[dict[str, Any]]
BOOTSTRAP = "hw_" + "B" * 43


class Clock:
    """The clock that the key rings remember by."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(service, "time", SimpleNamespace(monotonic=made.monotonic))
    return made


def rows(db: Db) -> list[dict[str, Any]]:
    return db.execute("SELECT * FROM api_keys ORDER BY created_at").fetchall()


async def revoke(database: Database, name: str) -> bool:
    async with database.transaction() as connection:
        return await queries.revoke_key(connection, name=name, now=clock.now())


async def test_only_a_hash_of_the_key_is_stored(database: Database, db: Db) -> None:
    key = await make_key(database, "read", "admin", name="grafana")
    assert service._KEY.fullmatch(key)
    (row,) = rows(db)
    assert row["key_hash"] == hashlib.sha256(key.encode()).digest()
    assert (row["prefix"], row["name"], row["scopes"]) == (key[:9], "grafana", ["read", "admin"])
    stored = db.execute("SELECT k::text AS text FROM api_keys k").fetchall()
    assert key not in str(stored)
    assert key[9:] not in str(stored)
    assert len({await make_key(database, "read", name=str(n)) for n in range(5)}) == 5


async def test_keys_have_names_of_their_own_while_they_work(database: Database) -> None:
    await make_key(database, "read", name="ci")
    with pytest.raises(ConflictError) as caught:
        await make_key(database, "read", name="ci")
    assert caught.value.problem_code == "name_taken"
    assert await revoke(database, "ci")
    assert not await revoke(database, "ci")
    await make_key(database, "read", name="ci")
    async with database.transaction() as connection:
        listed = await queries.list_keys(connection)
    assert [(row.name, row.revoked_at is None) for row in listed] == [("ci", True), ("ci", False)]


async def test_key_that_could_never_work_is_not_made(database: Database, db: Db) -> None:
    with pytest.raises(NotFoundError):
        await make_key(database, "read", client="nobody")
    for scopes, name, expires_in in (
        ((), "none", None),
        (("read",), " ", None),
        (("read",), "n" * 201, None),
        (("read",), "over", timedelta(0)),
    ):
        with pytest.raises(InvalidInputError):
            await make_key(database, *scopes, name=name, expires_in=expires_in)
    assert rows(db) == []


async def test_use_is_noted_to_the_minute(keyed: Api, database: Database, db: Db, ticking: Clock) -> None:
    key = keyed.with_key(await make_key(database, "read"))
    assert rows(db)[0]["last_used_at"] is None
    assert (await key.get("/clients")).status_code == 200
    first = rows(db)[0]["last_used_at"]
    assert clock.now() - first < timedelta(seconds=10)
    ticking.seconds += 10
    await key.get("/clients")
    assert rows(db)[0]["last_used_at"] == first
    db.execute("UPDATE api_keys SET last_used_at = last_used_at - interval '61 seconds'")
    ticking.seconds += 10
    await key.get("/clients")
    assert rows(db)[0]["last_used_at"] >= first


async def test_note_of_use_waits_for_nobody(keyed: Api, database: Database, db: Db, app_url: str) -> None:
    key = keyed.with_key(await make_key(database, "read"))
    with psycopg.connect(app_url) as other:
        other.execute("SELECT 1 FROM api_keys FOR UPDATE")
        response = await asyncio.wait_for(key.get("/clients"), timeout=3)
        assert response.status_code == 200
        other.rollback()
    assert rows(db)[0]["last_used_at"] is None


async def test_revoked_key_is_refused_within_five_seconds(keyed: Api, database: Database, ticking: Clock) -> None:
    key = keyed.with_key(await make_key(database, "read", name="ci"))
    assert (await key.get("/clients")).status_code == 200
    assert await revoke(database, "ci")
    ticking.seconds += 4.5
    refused = await key.get("/clients")
    assert (refused.status_code, refused.json()["code"]) == (401, "key_revoked")
    again = await key.get("/clients")
    assert again.status_code == 401


async def test_known_key_costs_no_query_for_a_moment(keyed: Api, database: Database, ticking: Clock) -> None:
    ring = keyed.app.state.key_ring
    header = f"Bearer {await make_key(database, 'read', name='ci')}"
    first = await ring.authenticate(header)
    await revoke(database, "ci")
    assert await ring.authenticate(header) is first
    assert service.CACHE_SECONDS < 5


async def test_expired_key_is_refused_on_time(keyed: Api, database: Database, db: Db, ticking: Clock) -> None:
    key = keyed.with_key(await make_key(database, "read", expires_in=timedelta(seconds=1)))
    assert (await key.get("/clients")).status_code == 200
    db.execute("UPDATE api_keys SET expires_at = expires_at - interval '1 second'")
    ticking.seconds += 1
    refused = await key.get("/clients")
    assert (refused.status_code, refused.json()["code"]) == (401, "key_expired")


async def test_keys_of_a_deactivated_client_rest(keyed: Api, database: Database, ticking: Clock) -> None:
    admin = keyed.with_key(await make_key(database, "admin", "read"))
    await admin.make_client("acme")
    bound = keyed.with_key(await make_key(database, "read", "admin", client="acme"))
    assert [c["slug"] for c in (await bound.get("/clients")).json()["items"]] == ["acme"]
    await admin.delete("/clients/acme")
    ticking.seconds += 4.5
    refused = await bound.get("/clients")
    assert (refused.status_code, refused.json()["code"]) == (401, "client_inactive")
    assert (await admin.get("/clients/acme")).status_code == 200
    await admin.patch("/clients/acme", json={"is_active": True})
    assert (await bound.get("/clients")).status_code == 200


async def test_bootstrap_key_is_made_once_by_any_number_of_processes(database: Database, db: Db) -> None:
    async def ensure() -> None:
        async with database.transaction() as connection:
            await service.ensure_bootstrap_key(connection, key=BOOTSTRAP, now=clock.now())

    await asyncio.gather(*(ensure() for _ in range(4)))
    (row,) = rows(db)
    assert row["scopes"] == ["read", "ingest", "admin"]
    assert row["client_id"] is None
    assert BOOTSTRAP not in str(row)
    await revoke(database, row["name"])
    await ensure()
    assert [r["revoked_at"] is None for r in rows(db)] == [False]


async def test_bootstrap_key_of_the_settings_works_at_once(app_url: str, db: Db) -> None:
    app = create_app(load_settings({"HEADWAY_BOOTSTRAP_KEY": BOOTSTRAP}), app_url)
    async with running(app) as api:
        assert (await api.with_key(BOOTSTRAP).post("/clients", json={"name": "First"})).status_code == 201


async def test_bootstrap_key_says_whose_name_is_in_its_way(database: Database) -> None:
    await make_key(database, "read", name=f"bootstrap-{BOOTSTRAP[3:9]}")
    with pytest.raises(ConflictError):
        async with database.transaction() as connection:
            await service.ensure_bootstrap_key(connection, key=BOOTSTRAP, now=clock.now())


@pytest.fixture
def json_logs() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    structlog.reset_defaults()


async def test_key_is_in_no_log_and_no_repr(
    keyed: Api, database: Database, capsys: pytest.CaptureFixture[str], json_logs: None
) -> None:
    logs.configure("debug", "json")
    key = await make_key(database, "read", "admin")
    unknown = service.generate_key()
    for sent in (key, unknown):
        api = keyed.with_key(sent)
        await api.get("/clients")
        await api.get(f"/clients?token={sent}")
        await api.get(f"/clients/{sent}")
        await api.post("/clients", json={"name": sent, "slug": sent})
    ring = keyed.app.state.key_ring
    said = capsys.readouterr()
    seen = said.out + said.err + repr(ring) + repr(vars(ring)) + repr(keyed.app.state.settings)
    assert "request_finished" in seen
    for sent in (key, unknown):
        assert sent[9:] not in seen


def test_principal_sees_its_own_client_alone() -> None:
    mine, other = uuid4(), uuid4()
    bound = Principal("b", frozenset(Scope), mine, "mine")
    assert bound.sees(mine)
    assert not bound.sees(other)
    assert not bound.may_make_clients
    assert not Principal("i", frozenset({Scope.INGEST, Scope.READ})).may_make_clients
    assert Principal("a", frozenset({Scope.ADMIN})).may_make_clients
    assert not Principal("r", frozenset({Scope.READ})).sees_ping_credentials

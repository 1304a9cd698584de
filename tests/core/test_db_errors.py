"""What the database refuses, in words: every unique constraint has its own, and a dead database is 503."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from headway.core import db_errors
from headway.core.db import Database
from headway.core.errors import ConflictError, HeadwayError, InvalidInputError, UnavailableError
from headway.migrations.runner import METADATA

Db = psycopg.Connection[dict[str, Any]]

# Keys that no caller chooses: our own ids, and those that the one writer joins on.
NEVER_CLASH = {"pk_clients", "pk_pipelines", "pk_alert_rules", "pk_api_keys", "pk_runs", "pk_run_events"}


def unique_names() -> Iterator[str]:
    for table in METADATA.tables.values():
        yield str(table.primary_key.name)
        yield from (str(c.name) for c in table.constraints if isinstance(c, sa.UniqueConstraint))
        yield from (str(index.name) for index in table.indexes if index.unique)


def test_every_unique_constraint_has_a_sentence() -> None:
    table_keys = {str(table.primary_key.name) for table in METADATA.tables.values()}
    assert set(unique_names()) - table_keys == set(db_errors.CLASHES)
    assert table_keys >= NEVER_CLASH


def test_names_of_the_models_are_those_of_the_database(db: Db) -> None:
    found = db.execute(
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "WHERE i.indisunique AND c.relnamespace = 'public'::regnamespace AND c.relname <> 'alembic_version_pkc'"
    )
    assert {row["relname"] for row in found} == set(unique_names())


def test_codes_are_words_and_details_sentences() -> None:
    for code, detail in db_errors.CLASHES.values():
        assert code.replace("_", "").isalpha()
        assert code.islower()
        assert len(detail.split()) > 2


async def run(database: Database, statements: str) -> None:
    async with database.transaction() as connection:
        for statement in statements.split(";"):
            await connection.execute(sa.text(statement))


async def failing(database: Database, statements: str) -> HeadwayError:
    with pytest.raises(HeadwayError) as caught:
        await run(database, statements)
    return caught.value


async def test_violations_are_conflicts(database: Database) -> None:
    client = "INSERT INTO clients (id, slug, name, ping_key, created_at, updated_at) VALUES "
    values = "(gen_random_uuid(), 'a', '{}', '{}', now(), now())"
    twice = await failing(database, f"{client} {values.format('A', 1)}, {values.format('B', 2)}")
    assert isinstance(twice, ConflictError)
    assert twice.problem_code == "slug_taken"
    orphan = (
        "INSERT INTO pipelines (id, client_id, slug, name, platform, ping_uuid, created_at, updated_at) VALUES "
        "(gen_random_uuid(), gen_random_uuid(), 'a', 'a', 'a', gen_random_uuid(), now(), now())"
    )
    assert isinstance(await failing(database, orphan), ConflictError)


@pytest.mark.parametrize(
    ("statement", "kind", "code"),
    [
        ("SELECT 1 / 0", InvalidInputError, "invalid_input"),
        ("SELECT 'x'::int", InvalidInputError, "invalid_input"),
        ("SELECT repeat('x', 1 << 30) || 'x'", InvalidInputError, "invalid_input"),
        ("SET LOCAL statement_timeout = 10; SELECT pg_sleep(5)", UnavailableError, "timeout"),
        ("SET TRANSACTION READ ONLY; DELETE FROM clients", UnavailableError, "database_unavailable"),
        ("SELECT pg_terminate_backend(pg_backend_pid())", UnavailableError, "database_unavailable"),
    ],
)
async def test_refusals_have_a_status(database: Database, statement: str, kind: type[HeadwayError], code: str) -> None:
    error = await failing(database, statement)
    assert isinstance(error, kind)
    assert error.problem_code == code
    assert (error.retry_after is not None) == (kind is UnavailableError)


async def test_row_that_is_held_makes_busy(database: Database, db: Db, app_url: str) -> None:
    db.execute(
        "INSERT INTO clients (id, slug, name, ping_key, created_at, updated_at) "
        "VALUES (gen_random_uuid(), 'a', 'a', 'a', now(), now())"
    )
    with psycopg.connect(app_url) as other:
        other.execute("SELECT 1 FROM clients FOR UPDATE")
        error = await failing(database, "SET LOCAL lock_timeout = 20; UPDATE clients SET name = 'b'")
    assert (error.status, error.problem_code) == (503, "busy")


async def test_value_that_no_index_takes_is_invalid_input(database: Database) -> None:
    # random text, so that it is not compressed into fitting
    statement = (
        "INSERT INTO clients (id, slug, name, ping_key, created_at, updated_at) "
        "SELECT gen_random_uuid(), 'a', 'a', string_agg(gen_random_uuid()::text, ''), now(), now() "
        "FROM generate_series(1, 1000)"
    )
    assert isinstance(await failing(database, statement), InvalidInputError)


@pytest.mark.parametrize("port", [1, 9])
async def test_database_that_is_not_there_is_unavailable(port: int) -> None:
    database = Database(f"postgresql://u:s3cret@127.0.0.1:{port}/d")
    for way in (database.transaction, database.session):
        with pytest.raises(UnavailableError) as caught:
            async with way() as connection:
                await connection.execute(sa.text("SELECT 1"))
        assert (caught.value.problem_code, caught.value.status) == ("database_unavailable", 503)
        assert caught.value.headers["Retry-After"] == "2"
        assert "s3cret" not in caught.value.detail
    await database.dispose()


async def test_busy_pool_is_unavailable(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(app_url, pool_size=1)
    monkeypatch.setattr(database.engine.sync_engine.pool, "_timeout", 0.05)
    async with database.transaction():
        with pytest.raises(UnavailableError) as caught:
            async with database.transaction():
                pass
    assert caught.value.problem_code == "overloaded"
    await database.dispose()


def test_errors_that_are_bugs_stay_what_they_are() -> None:
    with pytest.raises(HeadwayError, match="UndefinedTable") as raised, db_errors.translated():
        raise psycopg.errors.UndefinedTable
    assert raised.value.status == 500
    with pytest.raises(KeyError), db_errors.translated():
        raise KeyError
    for kind in (psycopg.errors.SerializationFailure, psycopg.errors.IdleInTransactionSessionTimeout):
        with pytest.raises(UnavailableError), db_errors.translated():
            raise kind

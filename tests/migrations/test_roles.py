"""The three roles: what each may do, and who can make them on a server that is not ours to command."""

import shutil
from collections.abc import Iterator
from os import environ
from pathlib import Path
from typing import Any

import psycopg
import pytest

from headway.embedded.server import EmbeddedServer
from headway.migrations import runner
from headway.migrations.runner import APP, METADATA, OWNER, READER, MigrationError
from tests.conftest import FAST, PASSWORDS, readable_directory

DENIED = psycopg.errors.InsufficientPrivilege
TABLES = sorted(table.name for table in METADATA.sorted_tables)


def run(url: str, *statements: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


# ---- what each may do, in a database that the superuser made and migrated ------------------------------------------


@pytest.fixture(scope="module")
def migrated(server: EmbeddedServer, template: str) -> str:
    """Return the name of a database that was migrated, not cloned: grants on a database are not cloned."""
    run(server.superuser_url(), "CREATE DATABASE roles")
    runner.upgrade(server.superuser_url("roles"))
    run(server.superuser_url("roles"), f"SET ROLE {OWNER}", "CREATE VIEW reporting.probe AS SELECT slug FROM clients")
    runner.upgrade(server.superuser_url("roles"))
    return "roles"


def url_of(server: EmbeddedServer, role: str, database: str) -> str:
    return server.url(role, PASSWORDS[role], database)


def test_all_belongs_to_the_owner(server: EmbeddedServer, migrated: str) -> None:
    query = """
        SELECT DISTINCT relowner::regrole::text FROM pg_class
        WHERE relnamespace IN ('public'::regnamespace, 'reporting'::regnamespace)
        UNION SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'reporting'"""
    assert run(server.superuser_url(migrated), query) == [(OWNER,)]


def test_service_reads_and_writes_rows(server: EmbeddedServer, migrated: str) -> None:
    url = url_of(server, APP, migrated)
    for table in TABLES:
        assert run(url, f"SELECT count(*) FROM {table}") == [(0,)]
        privileges = f"SELECT has_table_privilege('{table}', 'INSERT'), has_table_privilege('{table}', 'UPDATE'), has_table_privilege('{table}', 'DELETE')"
        assert run(url, privileges) == [(True, True, True)]
    assert run(url, "SELECT version_num FROM alembic_version") == [(runner.head(),)]
    # the batches' staging tables
    run(url, "CREATE TEMP TABLE staging (n int)")


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE public.mine (n int)",
        "CREATE TABLE reporting.mine (n int)",
        "CREATE SCHEMA mine",
        "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE INDEX ON clients (name)",
        "CREATE EXTENSION pg_trgm",
        "ALTER TABLE clients ADD COLUMN n int",
        "ALTER TABLE clients DISABLE TRIGGER ALL",
        f"ALTER TABLE clients OWNER TO {APP}",
        "DROP TABLE clients CASCADE",
        "TRUNCATE run_events",
        "INSERT INTO alembic_version VALUES ('9999')",
        "UPDATE alembic_version SET version_num = '9999'",
        "DELETE FROM alembic_version",
        f"SET ROLE {OWNER}",
        "CREATE ROLE mine",
        "COPY clients TO '/tmp/x'",
    ],
)
def test_service_cannot_change_the_schema(server: EmbeddedServer, migrated: str, statement: str) -> None:
    with pytest.raises(DENIED):
        run(url_of(server, APP, migrated), statement)


@pytest.mark.parametrize("table", [*TABLES, "alembic_version"])
def test_reader_sees_no_table(server: EmbeddedServer, migrated: str, table: str) -> None:
    with pytest.raises(DENIED):
        run(url_of(server, READER, migrated), f"SELECT 1 FROM public.{table}")


def test_reader_sees_what_is_in_reporting(server: EmbeddedServer, migrated: str) -> None:
    url = url_of(server, READER, migrated)
    assert run(url, "SELECT * FROM reporting.probe") == []
    query = """
        SELECT DISTINCT table_schema FROM information_schema.table_privileges
        WHERE grantee = current_user AND privilege_type = 'SELECT'"""
    assert run(url, query) == [("reporting",)]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TEMP TABLE mine (n int)",
        "CREATE TABLE public.mine (n int)",
        "CREATE TABLE reporting.mine (n int)",
        "CREATE SCHEMA mine",
        "UPDATE reporting.probe SET slug = 'x'",
        "DELETE FROM clients",
        f"SET ROLE {APP}",
        f"SET ROLE {OWNER}",
        "SELECT pg_read_file('/etc/passwd')",
    ],
)
def test_reader_cannot_write_even_where_it_says_so(server: EmbeddedServer, migrated: str, statement: str) -> None:
    with pytest.raises(DENIED):
        run(url_of(server, READER, migrated), "SET default_transaction_read_only = off", statement)


def test_reader_is_kept_in_bounds(server: EmbeddedServer, migrated: str) -> None:
    url = url_of(server, READER, migrated)
    assert run(url, "SHOW default_transaction_read_only") == [("on",)]
    assert run(url, "SHOW statement_timeout") == [("1min",)]
    assert run(url, "SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user") == [(20,)]
    flags = "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = ANY (%s)"
    with psycopg.connect(server.superuser_url()) as connection:
        rows = connection.execute(flags, ([OWNER, APP, READER],)).fetchall()
    assert rows == [(False,) * 5] * 3


# ---- on a server of somebody else: a second one, without the roles -------------------------------------------------


@pytest.fixture(scope="module")
def foreign() -> Iterator[EmbeddedServer]:
    directory = readable_directory()
    bin_dir = environ.get("HEADWAY_TEST_PG_BIN")
    try:
        with EmbeddedServer(directory, bin_dir=Path(bin_dir) if bin_dir else None, settings=FAST) as made:
            yield made
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def bare(foreign: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """Return the server without our roles, and with an empty database hub of a user tenant."""
    admin = foreign.superuser_url()
    run(admin, "CREATE ROLE tenant LOGIN PASSWORD 'tenant'", "CREATE DATABASE hub OWNER tenant")
    yield foreign
    run(admin, "DROP DATABASE hub WITH (FORCE)")
    for role in (OWNER, APP, READER, "tenant"):
        run(admin, f"DROP ROLE IF EXISTS {role}")


def tenant_url(server: EmbeddedServer) -> str:
    return server.url("tenant", "tenant", "hub")


def check_walls(server: EmbeddedServer) -> None:
    """Check the grants that count, whoever migrated."""
    for role in (OWNER, APP, READER):
        run(server.superuser_url(), f"ALTER ROLE {role} PASSWORD '{PASSWORDS[role]}'")
    app, reader = (url_of(server, role, "hub") for role in (APP, READER))
    assert run(app, "CREATE TEMP TABLE staging (n int)", "SELECT count(*) FROM clients") == [(0,)]
    with pytest.raises(DENIED):
        run(app, "CREATE TABLE public.mine (n int)")
    for statement in ("SELECT 1 FROM clients", "CREATE TEMP TABLE mine (n int)"):
        with pytest.raises(DENIED):
            run(reader, "SET default_transaction_read_only = off", statement)
    owned = "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    assert run(server.superuser_url("hub"), owned) == [(OWNER,)]
    assert run(reader, "SHOW default_transaction_read_only") == [("on",)]


def test_user_who_may_not_make_roles_is_told_the_sql(bare: EmbeddedServer) -> None:
    with pytest.raises(MigrationError) as caught:
        runner.upgrade(tenant_url(bare))
    message, *lines = str(caught.value).splitlines()
    assert "let an administrator run" in message
    assert run(bare.superuser_url("hub"), "SELECT 1 FROM pg_class WHERE relname = 'clients'") == []
    # what it says is what it takes: the administrator runs it as it stands, but for the passwords
    run(bare.superuser_url("hub"), *(line.strip().replace("…", "secret") for line in lines))
    assert runner.upgrade(tenant_url(bare)) == (None, runner.head())
    check_walls(bare)


def test_user_who_owns_the_database_and_may_make_roles_needs_nobody(bare: EmbeddedServer) -> None:
    run(bare.superuser_url(), "ALTER ROLE tenant CREATEROLE")
    assert runner.upgrade(tenant_url(bare), passwords=PASSWORDS) == (None, runner.head())
    assert run(url_of(bare, APP, "hub"), "SELECT 1") == [(1,)]
    check_walls(bare)


def test_owner_who_is_no_superuser_migrates_the_empty_database_it_owns(bare: EmbeddedServer) -> None:
    admin = bare.superuser_url()
    run(admin, *(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORDS[role]}'" for role in (OWNER, APP, READER)))
    run(admin, f"ALTER DATABASE hub OWNER TO {OWNER}", f"ALTER ROLE {READER} SET default_transaction_read_only = on")
    assert runner.upgrade(url_of(bare, OWNER, "hub")) == (None, runner.head())
    assert runner.upgrade(url_of(bare, OWNER, "hub")) == (runner.head(), runner.head())
    check_walls(bare)


def test_owner_without_a_right_in_the_database_is_told_the_sql(bare: EmbeddedServer) -> None:
    admin = bare.superuser_url()
    run(admin, *(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORDS[role]}'" for role in (OWNER, APP, READER)))
    run(admin, f"ALTER ROLE {READER} SET default_transaction_read_only = on")
    with pytest.raises(MigrationError, match="a right is missing") as caught:
        runner.upgrade(url_of(bare, OWNER, "hub"))
    _, *lines = str(caught.value).splitlines()
    run(bare.superuser_url("hub"), *(line.strip() for line in lines))
    assert runner.upgrade(url_of(bare, OWNER, "hub")) == (None, runner.head())
    check_walls(bare)


def test_stranger_cannot_migrate(bare: EmbeddedServer) -> None:
    runner.upgrade(bare.superuser_url("hub"))
    with pytest.raises(MigrationError, match=f"GRANT {OWNER} TO tenant"):
        runner.upgrade(tenant_url(bare))
    with pytest.raises(MigrationError):
        runner.downgrade(tenant_url(bare), "base")
    check_walls(bare)


def test_role_that_is_missing_alone_is_made(bare: EmbeddedServer) -> None:
    runner.upgrade(bare.superuser_url("hub"))
    run(bare.superuser_url("hub"), f"DROP OWNED BY {READER}", f"DROP ROLE {READER}")
    runner.upgrade(bare.superuser_url("hub"))
    check_walls(bare)

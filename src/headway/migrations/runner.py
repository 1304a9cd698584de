"""Brings a database to the current schema, and makes the roles that it is used by.

Called by ``headway migrate``, ``headway up`` and the tests. Migrations run as ``headway_owner`` in one transaction
under a lock, so that two of them never meet, with timeouts, so that a forgotten lock cannot stop a running service.
Everything made belongs to the owner; ``headway_app`` reads and writes rows, ``headway_reader`` sees the schema
``reporting`` alone (``tests/migrations/test_roles.py``).
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from alembic import command, migration
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg import sql

from headway.access import models as _access
from headway.alerts import models as _alerts
from headway.clients import models as _clients
from headway.connectors import models as _connectors
from headway.core.db import Base, driver_url
from headway.pipelines import models as _pipelines
from headway.runs import models as _runs

METADATA = Base.metadata
_MODELS = (_access, _alerts, _clients, _connectors, _pipelines, _runs)  # imported so that METADATA is whole

OWNER, APP, READER = "headway_owner", "headway_app", "headway_reader"

# Grafana and Metabase run whatever SQL a viewer sends: a wall of habits around the one that counts, the grants.
_READER_HABITS = (
    f"ALTER ROLE {READER} CONNECTION LIMIT 20",
    f"ALTER ROLE {READER} SET default_transaction_read_only = on",
    f"ALTER ROLE {READER} SET statement_timeout = '60s'",
)
# What the owner of the database has to grant, once; {database} is its quoted name.
_DATABASE_GRANTS = (
    f"GRANT ALL ON DATABASE {{database}} TO {OWNER}",
    f"GRANT CONNECT, TEMPORARY ON DATABASE {{database}} TO {APP}",
    f"GRANT CONNECT ON DATABASE {{database}} TO {READER}",
    "REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC",
)
_PUBLIC_GRANTS = (
    f"GRANT ALL ON SCHEMA public TO {OWNER}",
    f"GRANT USAGE ON SCHEMA public TO {APP}",
    "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
)
_TABLE_GRANTS = (
    f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {APP}",
    f"REVOKE INSERT, UPDATE, DELETE ON TABLE alembic_version FROM {APP}",
    f"GRANT USAGE ON SCHEMA reporting TO {READER}",
    f"GRANT SELECT ON ALL TABLES IN SCHEMA reporting TO {READER}",
)

_LOCK_TIMEOUT, _TURN_TIMEOUT = "5s", "30min"
_OPTIONS = f"-c timezone=UTC -c lock_timeout={_LOCK_TIMEOUT} -c statement_timeout=30min"
_LOCK = 0x68656164  # "head": any two migrations of one database wait for each other


class MigrationError(Exception):
    """The database cannot be brought to the current schema; the message says what to do."""


def is_ours(_object: object, name: str | None, kind: str, _reflected: bool, _compared: object) -> bool:
    """Tell whether Alembic should compare a thing of the database with the models."""
    return not (kind == "table" and name == "alembic_version")


def config(connection: sa.Connection | None = None) -> Config:
    """Return Alembic's configuration; there is no ini file."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    made.set_main_option("path_separator", "os")
    made.attributes["connection"] = connection
    return made


def head() -> str:
    """Return the revision that this version of Headway needs."""
    revision = ScriptDirectory.from_config(config()).get_current_head()
    assert revision is not None  # noqa: S101 - the package ships its migrations
    return revision


def engine(url: str) -> sa.Engine:
    """Return a plain engine for administration, with the timeouts that migrations keep."""
    return sa.create_engine(
        driver_url(url), poolclass=sa.NullPool, connect_args={"options": _OPTIONS, "connect_timeout": 10}
    )


def upgrade(url: str, *, passwords: Mapping[str, str] | None = None) -> tuple[str | None, str]:
    """Make missing roles, then bring the schema to the head; returns the revisions before and after.

    Args:
        url: of the owner, or of anyone who may become it.
        passwords: by role, for roles that are made here.

    Raises:
        MigrationError: a role or a right is missing and this user may not give it, a table is in use, or the database
            is newer than this version.
    """
    with _transaction(url) as connection:
        _ensure_roles(connection, passwords or {})
        _grant_database(connection)
        _become_owner(connection)
        before = current(connection)
        if before is not None and before not in {s.revision for s in _scripts()}:
            msg = (
                f"the database is at revision {before}, which this version of Headway does not know: "
                "it was migrated by a newer version; run that version, or restore a backup"
            )
            raise MigrationError(msg)
        command.upgrade(config(connection), "head")
        _execute(connection, _TABLE_GRANTS)
        return before, head()


def downgrade(url: str, revision: str) -> None:
    """Take the schema back to a revision (``base`` removes all of it).

    Raises:
        MigrationError: this user may not, a table is in use, or there is no such revision.
    """
    with _transaction(url) as connection:
        _become_owner(connection)
        try:
            command.downgrade(config(connection), revision)
        except CommandError as error:
            raise MigrationError(str(error)) from None


@contextmanager
def _transaction(url: str) -> Iterator[sa.Connection]:
    """Yield a connection in a transaction that no other migration of this database meets."""
    made = engine(url)
    try:
        with made.begin() as connection:
            # another migration may take its time; only the tables of a running service are not waited for
            timeout = sa.text("SELECT set_config('lock_timeout', :timeout, true)")
            connection.execute(timeout, {"timeout": _TURN_TIMEOUT})
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            connection.execute(timeout, {"timeout": _LOCK_TIMEOUT})
            yield connection
    except (sa.exc.DBAPIError, psycopg.Error) as error:
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        said = _worded(cause, str(made.url.database))
        if said is None:
            raise
        raise MigrationError(said) from error
    finally:
        made.dispose()


def _worded(error: BaseException | None, database: str) -> str | None:
    """Return what to do about an error of the database, None where that is not known."""
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return (
            f"a table that has to change was in use for more than {_LOCK_TIMEOUT}, so nothing was done: try again when "
            "no long query or backup runs"
        )
    if isinstance(error, psycopg.errors.QueryCanceled):
        return "the migration was canceled or took too long, so nothing was done"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        said = error.diag.message_primary
        return f"a right is missing ({said}); let the owner of the database run:\n{_lines(_grants(database))}"
    return None


def current(connection: sa.Connection) -> str | None:
    """Return the revision that a database is at, None for an empty one."""
    return migration.MigrationContext.configure(connection).get_current_revision()


def _scripts() -> Any:
    return ScriptDirectory.from_config(config()).walk_revisions()


def _ensure_roles(connection: sa.Connection, passwords: Mapping[str, str]) -> None:
    """Make the roles that are missing, or say which SQL does."""
    known = set(connection.execute(sa.text("SELECT rolname FROM pg_roles")).scalars())
    missing = [role for role in (OWNER, APP, READER) if role not in known]
    user, may = connection.execute(
        sa.text("SELECT current_user, rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
    ).one()
    if missing and not may:
        raise MigrationError(_role_sql(missing, user, str(connection.engine.url.database)))
    cursor = connection.connection.cursor()
    for role in missing:
        password = passwords.get(role)
        secret = sql.SQL(" PASSWORD {}").format(sql.Literal(password)) if password else sql.SQL("")
        cursor.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)) + secret)
    if OWNER in missing:
        _execute(connection, [f"GRANT {OWNER} TO CURRENT_USER"])
    if READER in missing:
        _execute(connection, _READER_HABITS)


def _grant_database(connection: sa.Connection) -> None:
    """Give each role what it needs of the database itself, where this user may; else somebody did or has to."""
    owns_database, owns_public = connection.execute(
        sa.text(
            "SELECT pg_has_role(current_user, datdba, 'USAGE'), pg_has_role(current_user, nspowner, 'USAGE') "
            "FROM pg_database, pg_namespace WHERE datname = current_database() AND nspname = 'public'"
        )
    ).one()
    if owns_database:
        database = _quoted(str(connection.engine.url.database))
        _execute(connection, [grant.format(database=database) for grant in _DATABASE_GRANTS])
    if owns_public:
        _execute(connection, _PUBLIC_GRANTS)


def _become_owner(connection: sa.Connection) -> None:
    """Act as the owner from here to the end of the transaction, so that everything made belongs to it."""
    user, is_member = connection.execute(
        sa.text("SELECT current_user, pg_has_role(current_user, :owner, 'MEMBER')"), {"owner": OWNER}
    ).one()
    if user == OWNER:
        return
    if not is_member:
        msg = f"migrations run as {OWNER}: connect as that role, or let an administrator GRANT {OWNER} TO {user}"
        raise MigrationError(msg)
    _execute(connection, [f"SET LOCAL ROLE {OWNER}"])


def _role_sql(missing: list[str], user: str, database: str) -> str:
    """Return what somebody with the right to make roles has to run."""
    statements = [f"CREATE ROLE {role} LOGIN PASSWORD '…'" for role in missing]
    if READER in missing:
        statements += _READER_HABITS
    if user != OWNER:
        statements.append(f"GRANT {OWNER} TO {_quoted(user)}")
    statements += _grants(database)
    return f"roles are missing and this user may not make them; let an administrator run:\n{_lines(statements)}"


def _grants(database: str) -> list[str]:
    return [*(grant.format(database=_quoted(database)) for grant in _DATABASE_GRANTS), *_PUBLIC_GRANTS]


def _lines(statements: Iterable[str]) -> str:
    return "\n".join(f"  {statement};" for statement in statements)


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string()


def _execute(connection: sa.Connection, statements: Iterable[str]) -> None:
    """Run statements of our own making, names in them quoted."""
    for statement in statements:
        connection.exec_driver_sql(statement)

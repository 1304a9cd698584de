"""Brings a database to the current schema, and makes the roles that it is used by.

Called by ``headway migrate``, ``headway up`` and the tests. Migrations run as ``headway_owner`` in one transaction
under a lock, so that two of them never meet, with timeouts, so that a forgotten lock cannot stop a running service.
Everything made belongs to the owner; ``headway_app`` reads and writes rows, ``headway_reader`` sees the schema
``reporting`` alone (``tests/migrations/test_roles.py``).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command, migration
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import sql

from headway.access import models as _access
from headway.alerts import models as _alerts
from headway.clients import models as _clients
from headway.core.db import Base, driver_url
from headway.pipelines import models as _pipelines
from headway.runs import models as _runs

METADATA = Base.metadata
_MODELS = (_access, _alerts, _clients, _pipelines, _runs)  # imported so that METADATA is whole

OWNER, APP, READER = "headway_owner", "headway_app", "headway_reader"

# Grafana and Metabase run whatever SQL a viewer sends: a wall of habits around the one that counts, the grants.
_AT_CREATION = {
    OWNER: (f"GRANT {OWNER} TO CURRENT_USER",),
    READER: (
        f"ALTER ROLE {READER} CONNECTION LIMIT 20",
        f"ALTER ROLE {READER} SET default_transaction_read_only = on",
        f"ALTER ROLE {READER} SET statement_timeout = '60s'",
    ),
}

_OPTIONS = "-c timezone=UTC -c lock_timeout=5s -c statement_timeout=30min"
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
        MigrationError: a role is missing and this user may not make it, or the database is newer than this version.
    """
    made = engine(url)
    try:
        with made.begin() as connection:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            _ensure_roles(connection, passwords or {})
            before = current(connection)
            if before is not None and before not in {s.revision for s in _scripts()}:
                msg = (
                    f"the database is at revision {before}, which this version of Headway does not know: "
                    "it was migrated by a newer version; run that version, or restore a backup"
                )
                raise MigrationError(msg)
            command.upgrade(config(connection), "head")
            _grant(connection)
            return before, head()
    finally:
        made.dispose()


def downgrade(url: str, revision: str) -> None:
    """Take the schema back to a revision (``base`` removes all of it)."""
    made = engine(url)
    try:
        with made.begin() as connection:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            _become_owner(connection)
            command.downgrade(config(connection), revision)
    finally:
        made.dispose()


def current(connection: sa.Connection) -> str | None:
    """Return the revision that a database is at, None for an empty one."""
    return migration.MigrationContext.configure(connection).get_current_revision()


def _scripts() -> Any:
    return ScriptDirectory.from_config(config()).walk_revisions()


def _ensure_roles(connection: sa.Connection, passwords: Mapping[str, str]) -> None:
    """Make the roles that are missing, or say which SQL does."""
    known = set(connection.execute(sa.text("SELECT rolname FROM pg_roles")).scalars())
    missing = [role for role in (OWNER, APP, READER) if role not in known]
    may = connection.execute(
        sa.text("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
    ).scalar_one()
    if missing and not may:
        raise MigrationError(_role_sql(missing, str(connection.engine.url.database)))
    cursor = connection.connection.cursor()
    for role in missing:
        password = passwords.get(role)
        secret = sql.SQL(" PASSWORD {}").format(sql.Literal(password)) if password else sql.SQL("")
        cursor.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)) + secret)
        for statement in _AT_CREATION.get(role, ()):
            cursor.execute(statement)
    _become_owner(connection)


def _become_owner(connection: sa.Connection) -> None:
    """Act as the owner from here to the end of the transaction, so that everything made belongs to it."""
    user, is_super, is_member = connection.execute(
        sa.text(
            "SELECT current_user, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), "
            "pg_has_role(current_user, :owner, 'MEMBER')"
        ),
        {"owner": OWNER},
    ).one()
    if user == OWNER:
        return
    if not is_member:
        msg = f"migrations run as {OWNER}: connect as that role, or GRANT {OWNER} TO {user}"
        raise MigrationError(msg)
    if is_super:
        database = sql.Identifier(str(connection.engine.url.database))
        cursor = connection.connection.cursor()
        cursor.execute(sql.SQL("GRANT ALL ON DATABASE {} TO {}").format(database, sql.Identifier(OWNER)))
        cursor.execute(sql.SQL("GRANT ALL ON SCHEMA public TO {}").format(sql.Identifier(OWNER)))
    connection.execute(sa.text(f"SET LOCAL ROLE {OWNER}"))


def _role_sql(missing: list[str], database: str) -> str:
    """Return the SQL that somebody with the right to make roles has to run."""
    lines = [f"CREATE ROLE {role} LOGIN PASSWORD '…';" for role in missing]
    if OWNER in missing:
        lines += [f'GRANT ALL ON DATABASE "{database}" TO {OWNER};', f"GRANT ALL ON SCHEMA public TO {OWNER};"]
    statements = "\n".join(f"  {line}" for line in lines)
    return f"roles are missing and this user may not make them; let an administrator run:\n{statements}"


_GRANTS = f"""
GRANT USAGE ON SCHEMA public TO {APP};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {APP};
REVOKE INSERT, UPDATE, DELETE ON TABLE alembic_version FROM {APP};
GRANT USAGE ON SCHEMA reporting TO {READER};
GRANT SELECT ON ALL TABLES IN SCHEMA reporting TO {READER};
"""


def _grant(connection: sa.Connection) -> None:
    """Give each role what it needs in this database, and take from everybody what nobody needs."""
    cursor = connection.connection.cursor()
    for statement in _GRANTS.strip().split("\n"):
        cursor.execute(statement)
    database = sql.Identifier(str(connection.engine.url.database))
    owns = "SELECT pg_has_role(current_user, datdba, 'USAGE') FROM pg_database WHERE datname = current_database()"
    if connection.execute(sa.text(owns)).scalar_one():
        cursor.execute(sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(database))
        cursor.execute(sql.SQL("GRANT CONNECT, TEMPORARY ON DATABASE {} TO {}").format(database, sql.Identifier(APP)))
        cursor.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, sql.Identifier(READER)))

"""Prepares the embedded server for Headway: its database, the three roles with passwords of their own, the schema.

Called by ``headway up`` after each start. The service never uses the superuser; it is used here alone.
"""

import os
import secrets
from pathlib import Path

import psycopg
from psycopg import sql

from headway.embedded.data_dir import DataDir
from headway.embedded.postmaster import RunningServer
from headway.migrations import runner
from headway.migrations.runner import APP, OWNER, READER

DATABASE = "headway"
ROLES = (OWNER, APP, READER)


def prepare(server: RunningServer, data_dir: Path) -> tuple[str | None, str]:
    """Bring the database, the roles and the schema to what this version needs; returns the revisions before and after.

    Raises:
        MigrationError: the data was written by a newer version.
    """
    passwords = {role: _make_password(data_dir, role) for role in ROLES}
    with psycopg.connect(server.superuser_url(), autocommit=True) as connection:
        known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
        if known is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    revisions = runner.upgrade(server.superuser_url(DATABASE), passwords=passwords)
    with psycopg.connect(server.superuser_url(DATABASE), autocommit=True) as connection:
        owned = sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(DATABASE), sql.Identifier(OWNER))
        connection.execute(owned)
        for role, password in passwords.items():
            renewed = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(password))
            connection.execute(renewed)
    return revisions


def role_url(server: RunningServer, data_dir: Path, role: str) -> str:
    """Return the URL of the embedded database for one of our roles."""
    return server.url(role, _password_file(data_dir, role).read_text(encoding="utf-8").strip(), DATABASE)


def _password_file(data_dir: Path, role: str) -> Path:
    return DataDir(data_dir).password_file.with_name(role)


def _make_password(data_dir: Path, role: str) -> str:
    """Return the role's password, made at the first start and kept in a file for its owner alone."""
    file = _password_file(data_dir, role)
    if not file.exists():
        descriptor = os.open(file.with_suffix(".new"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as new:
            new.write(secrets.token_urlsafe(24) + "\n")
            new.flush()
            os.fsync(descriptor)
        file.with_suffix(".new").replace(file)
    return file.read_text(encoding="utf-8").strip()

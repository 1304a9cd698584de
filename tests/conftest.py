"""What all tests share: a real PostgreSQL, a database of its own for each worker, the service on it.

The server is the embedded one (``HEADWAY_TEST_PG_BIN`` swaps its binaries), with durability switched off. The schema
is migrated once into a template named by a hash of the migrations; each worker has a clone, emptied after every test.
"""

import contextlib
import hashlib
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from os import environ
from pathlib import Path
from typing import Any

import psycopg
import pytest

import headway.migrations
from headway.core import logging
from headway.core.db import Database
from headway.embedded.server import EmbeddedServer
from headway.main import create_app
from headway.migrations import runner
from headway.runs import sql
from headway.settings import Settings, load_settings
from tests.api import Api, running

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "64MB"}
PASSWORDS = {runner.OWNER: "owner", runner.APP: "app", runner.READER: "reader"}


def readable_directory() -> Path:
    """Make a directory that the database's OS user can reach, which pytest's own are not for anyone but root."""
    made = Path(tempfile.mkdtemp(prefix="headway-test-"))
    made.chmod(0o755)
    return made


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    """Run a PostgreSQL for the session."""
    directory = readable_directory()
    bin_dir = environ.get("HEADWAY_TEST_PG_BIN")
    try:
        with EmbeddedServer(directory, bin_dir=Path(bin_dir) if bin_dir else None, settings=FAST) as running_server:
            yield running_server
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def template(server: EmbeddedServer) -> str:
    """Migrate a template database; returns its name."""
    versions = sorted((Path(headway.migrations.__file__).parent / "versions").glob("*.py"))
    name = "template_" + hashlib.sha256(b"".join(v.read_bytes() for v in versions)).hexdigest()[:12]
    with psycopg.connect(server.superuser_url(), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    runner.upgrade(server.superuser_url(name), passwords=PASSWORDS)
    return name


class CloneDatabase:
    """Makes databases with the current schema."""

    def __init__(self, server: EmbeddedServer, template: str) -> None:
        self._server, self._template, self._count = server, template, 0

    def __call__(self) -> str:
        """Return the name of a fresh clone."""
        self._count += 1
        name = f"clone_{self._count}"
        with psycopg.connect(self._server.superuser_url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{self._template}" STRATEGY file_copy')
            # grants on a database are not part of what a clone copies
            connection.execute(f'REVOKE TEMPORARY ON DATABASE "{name}" FROM PUBLIC')
            connection.execute(f'GRANT TEMPORARY ON DATABASE "{name}" TO {runner.APP}')
        return name


@pytest.fixture(scope="session")
def clone_database(server: EmbeddedServer, template: str) -> CloneDatabase:
    """Return a maker of fresh databases, for tests that must not share theirs."""
    return CloneDatabase(server, template)


@pytest.fixture(scope="session")
def database_name(clone_database: CloneDatabase) -> str:
    """Return the worker's own database."""
    return clone_database()


@pytest.fixture(scope="session")
def app_url(server: EmbeddedServer, database_name: str) -> str:
    """Return the URL that the service uses: as headway_app, as in production."""
    return server.url(runner.APP, PASSWORDS[runner.APP], database_name)


_EMPTY = "DELETE FROM run_events; DELETE FROM runs; DELETE FROM alert_rules; DELETE FROM api_keys; DELETE FROM pipelines; DELETE FROM clients; DELETE FROM sources"


@pytest.fixture
def db(server: EmbeddedServer, database_name: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """Look into the database behind the service's back; empties it after the test."""
    url = server.superuser_url(database_name)
    with psycopg.connect(url, autocommit=True, row_factory=psycopg.rows.dict_row) as connection:
        yield connection
        connection.execute(_EMPTY)


@pytest.fixture
async def database(app_url: str, db: psycopg.Connection[dict[str, Any]]) -> AsyncIterator[Database]:
    """Return the service's way to the database."""
    made = Database(app_url, pool_size=5, on_connect=sql.STAGING)
    yield made
    await made.dispose()


SettingsMaker = Callable[..., Settings]


@pytest.fixture(autouse=True, scope="session")
def _logging() -> None:
    """Log as the service does: the default would print every frame's variables for a crash."""
    logging.configure("warning", "json")


@pytest.fixture
def settings() -> Settings:
    """Return settings without keys, for a service on a loopback address."""
    return load_settings({}, auth="none")


@pytest.fixture
async def api(settings: Settings, app_url: str, db: psycopg.Connection[dict[str, Any]]) -> AsyncIterator[Api]:
    """Return a client of a service without keys; it checks every answer against the OpenAPI document."""
    async with running(create_app(settings, app_url)) as client:
        yield client


@pytest.fixture
async def keyed(app_url: str, db: psycopg.Connection[dict[str, Any]]) -> AsyncIterator[Api]:
    """Return a client of a service that asks for keys; give it one with ``keyed.with_key``."""
    async with running(create_app(load_settings({}, auth="keys"), app_url)) as client:
        yield client


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Close every way out but to this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            message = f"a test tried to reach {address[0]}"
            raise RuntimeError(message)
        connect(self, address)

    with contextlib.suppress(AttributeError):
        monkeypatch.setattr(socket.socket, "connect", guarded)

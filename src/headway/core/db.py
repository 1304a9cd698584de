"""The way to PostgreSQL: engine, transactions, and the base of the tables.

A request or a tick is one transaction, committed before its answer leaves. ``Database`` is made once per process in
``main.py`` or a command and handed on; nothing else makes an engine. What the driver raises is put into words in
``core/db_errors.py``.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from typing import Annotated, Any

from fastapi import Depends, Request
from sqlalchemy import MetaData, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from headway.core import db_errors


class Base(DeclarativeBase):
    """Base of all tables; constraints are named by convention, so that errors can be told by name."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )


def one_of(column: str, words: tuple[str, ...]) -> str:
    """Return the condition that a column holds one of these words."""
    return f"{column} IN ({', '.join(repr(word) for word in words)})"


def driver_url(url: str) -> URL:
    """Return a PostgreSQL URL with our driver, whatever driver or alias it names."""
    return make_url(url).set(drivername="postgresql+psycopg")


class Database:
    """The connections of one process."""

    def __init__(
        self, url: str, *, pool_size: int = 10, statement_timeout_seconds: float = 30.0, on_connect: str = ""
    ) -> None:
        options = (
            "-c timezone=UTC"
            f" -c statement_timeout={int(statement_timeout_seconds * 1000)}"
            f" -c lock_timeout={int(statement_timeout_seconds * 500)}"
            " -c idle_in_transaction_session_timeout=60000"
            " -c jit=off"  # look-ups of a few rows each, which the estimates make look large
        )
        arguments: dict[str, Any] = {
            "options": options,
            "connect_timeout": 5,
            "application_name": "headway",
            "client_encoding": "utf8",
        }
        # One pool; beyond it callers wait a little, then 503. READ COMMITTED is what the writer's law is built on.
        self.engine: AsyncEngine = create_async_engine(
            driver_url(url),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=5,
            pool_recycle=3600,
            connect_args=arguments,
            isolation_level="READ COMMITTED",
            hide_parameters=True,  # payloads and keys are no business of an error's text
        )
        if on_connect:
            event.listen(self.engine.sync_engine, "connect", _runs(on_connect))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection in a transaction: committed at the end, rolled back on an error."""
        with db_errors.translated():
            async with self.engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Yield an ORM session in a transaction: committed at the end, rolled back on an error."""
        with db_errors.translated():
            async with AsyncSession(self.engine, expire_on_commit=False) as session, session.begin():
                yield session

    async def dispose(self) -> None:
        """Close all connections."""
        await self.engine.dispose()


def _runs(statements: str) -> Callable[[Any, Any], None]:
    """Return a listener that runs statements once on each new connection."""

    def listener(connection: Any, _record: Any) -> None:
        with closing(connection.cursor()) as cursor:
            cursor.execute(statements)
        connection.commit()

    return listener


async def _session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.app.state.database.session() as session:
        yield session


async def _connection(request: Request) -> AsyncIterator[AsyncConnection]:
    async with request.app.state.database.transaction() as connection:
        yield connection


# scope="function": the transaction ends before the answer leaves, not after it.
Session = Annotated[AsyncSession, Depends(_session, scope="function")]
Connection = Annotated[AsyncConnection, Depends(_connection, scope="function")]

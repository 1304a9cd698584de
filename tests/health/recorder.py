"""Records the statements that a service sends, to count them and to look at their plans."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from headway.core.db import Database

Statement = tuple[str, Any]


@contextmanager
def recorded(database: Database) -> Iterator[list[Statement]]:
    """Yield the list in which the statements of a service's database are written down meanwhile."""
    sent: list[Statement] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        sent.append((statement, parameters))

    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def plan(database: Database, statement: Statement) -> dict[str, Any]:
    """Return the plan of a statement."""
    async with database.transaction() as connection:
        result = await connection.exec_driver_sql("EXPLAIN (FORMAT JSON) " + statement[0], statement[1])
        found: dict[str, Any] = result.scalar_one()[0]["Plan"]
        return found


def nodes(top: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a plan's nodes."""
    yield top
    for below in top.get("Plans", ()):
        yield from nodes(below)
